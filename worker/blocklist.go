package worker

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sort"
	"sync"
)

// ErrBadRule means a rule that a [BlockList] does not take: an invalid address or
// prefix, a range of two families, or one whose start comes after its end.
var ErrBadRule = errors.New("worker: not a rule of a block list")

// BlockList is a set of IP addresses that a [Server] does not serve: single ones,
// ranges and subnets of both families. An IPv4 address and its IPv4-mapped IPv6
// form (RFC 4291, 2.5.5.2) are one address in every rule and every check, because
// a dual-stack socket shows an IPv4 peer in the second form. Zones are ignored.
//
// The zero value is empty and ready. All methods may be called from any
// goroutine, also while servers use the list; a check takes O(log n) of the rules
// and does not allocate.
type BlockList struct {
	mu    sync.RWMutex
	rules []string // oldest first
	spans []span   // sorted, none overlaps another
}

// span is all addresses from lo to hi, both in 16-byte form without zone.
type span struct{ lo, hi netip.Addr }

// AddAddress blocks one address. Errors: ErrBadRule.
func (b *BlockList) AddAddress(a netip.Addr) error {
	if !a.IsValid() {
		return fmt.Errorf("%w: invalid address", ErrBadRule)
	}
	a = a.WithZone("")
	b.add(wide(a), wide(a), "Address: "+family(a)+" "+a.String())
	return nil
}

// AddRange blocks start, end and what is between them. Errors: ErrBadRule.
func (b *BlockList) AddRange(start, end netip.Addr) error {
	start, end = start.WithZone(""), end.WithZone("")
	switch {
	case !start.IsValid() || !end.IsValid():
		return fmt.Errorf("%w: invalid address", ErrBadRule)
	case start.Is4() != end.Is4():
		return fmt.Errorf("%w: %v and %v are of two families", ErrBadRule, start, end)
	case end.Less(start):
		return fmt.Errorf("%w: %v must come before %v", ErrBadRule, start, end)
	}
	b.add(wide(start), wide(end), "Range: "+family(start)+" "+start.String()+"-"+end.String())
	return nil
}

// AddSubnet blocks a network. Bits below the prefix do not count. Errors:
// ErrBadRule.
func (b *BlockList) AddSubnet(p netip.Prefix) error {
	if !p.IsValid() {
		return fmt.Errorf("%w: invalid prefix", ErrBadRule)
	}
	bits := p.Bits()
	if p.Addr().Is4() {
		bits += 96
	}
	lo, hi := p.Addr().As16(), p.Addr().As16()
	for i := range lo {
		mask := byte(0xff) // of the host part
		switch n := bits - 8*i; {
		case n >= 8:
			mask = 0
		case n > 0:
			mask >>= n
		}
		lo[i] &^= mask
		hi[i] |= mask
	}
	b.add(netip.AddrFrom16(lo), netip.AddrFrom16(hi), "Subnet: "+family(p.Addr())+" "+p.String())
	return nil
}

// Check reports whether a rule blocks a. An invalid address is not blocked.
func (b *BlockList) Check(a netip.Addr) bool {
	if !a.IsValid() {
		return false
	}
	a = wide(a.WithZone(""))
	b.mu.RLock()
	defer b.mu.RUnlock()
	i := sort.Search(len(b.spans), func(i int) bool { return !b.spans[i].hi.Less(a) })
	return i < len(b.spans) && !a.Less(b.spans[i].lo)
}

// Rules returns the rules as the reference writes them, the newest first:
//
//	Subnet: IPv6 2001:db8::/32
//	Range: IPv4 10.0.0.1-10.0.0.10
//	Address: IPv4 192.0.2.1
func (b *BlockList) Rules() []string {
	b.mu.RLock()
	defer b.mu.RUnlock()
	list := slices.Clone(b.rules)
	slices.Reverse(list)
	return list
}

// add enters a span, and joins it with those that it touches.
func (b *BlockList) add(lo, hi netip.Addr, rule string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.rules = append(b.rules, rule)
	from := sort.Search(len(b.spans), func(i int) bool { return !b.spans[i].hi.Less(lo) })
	to := sort.Search(len(b.spans), func(i int) bool { return hi.Less(b.spans[i].lo) })
	if from < to {
		if b.spans[from].lo.Less(lo) {
			lo = b.spans[from].lo
		}
		if hi.Less(b.spans[to-1].hi) {
			hi = b.spans[to-1].hi
		}
	}
	b.spans = slices.Replace(b.spans, from, to, span{lo, hi})
}

// blocks reports whether the list, which may be nil, blocks a peer. Peers
// without an IP address never are.
func (b *BlockList) blocks(peer net.Addr) bool {
	if b == nil {
		return false
	}
	t, ok := peer.(*net.TCPAddr)
	return ok && b.Check(t.AddrPort().Addr())
}

// wide returns the 16-byte form of an address.
func wide(a netip.Addr) netip.Addr { return netip.AddrFrom16(a.As16()) }

func family(a netip.Addr) string {
	if a.Is4() {
		return "IPv4"
	}
	return "IPv6"
}
