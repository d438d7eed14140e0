package worker

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"testing"
)

var addr = netip.MustParseAddr

// blockList makes a list of rules in the reference's notation, without family.
func blockList(t *testing.T, addresses []string, ranges [][2]string, subnets []string) *BlockList {
	t.Helper()
	b := new(BlockList)
	for _, a := range addresses {
		if err := b.AddAddress(addr(a)); err != nil {
			t.Fatal(err)
		}
	}
	for _, r := range ranges {
		if err := b.AddRange(addr(r[0]), addr(r[1])); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range subnets {
		if err := b.AddSubnet(netip.MustParsePrefix(s)); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

// What Node v20.20.2 says to the same rules and addresses.
func TestBlockListCheck(t *testing.T) {
	b := blockList(t, []string{"123.123.123.123", "::ffff:9.9.9.9", "fe80::1"}, [][2]string{{"10.0.0.1", "10.0.0.10"}, {"2001:db8::5", "2001:db8::7"}},
		[]string{"8592:757c:efae:4e45::/64", "192.168.1.77/16"})
	for a, want := range map[string]bool{
		"123.123.123.123": true, "::ffff:7b7b:7b7b": true, "::ffff:123.123.123.123": true, "123.123.123.124": false,
		"9.9.9.9": true, "::ffff:9.9.9.9": true, "fe80::1%1": true,
		"10.0.0.0": false, "10.0.0.1": true, "10.0.0.3": true, "::ffff:10.0.0.5": true, "10.0.0.10": true, "10.0.0.11": false,
		"2001:db8::4": false, "2001:db8::6": true, "2001:db8::8": false,
		"8592:757c:efae:4e45:1::": true, "8592:757c:efae:4e46::": false, "192.168.3.3": true, "::ffff:192.168.3.3": true, "192.169.0.0": false,
		"::1": false, "222.111.111.222": false,
	} {
		if got := b.Check(addr(a)); got != want {
			t.Errorf("%s: %v, want %v", a, got, want)
		}
	}
	if b.Check(netip.Addr{}) {
		t.Error("no address is blocked")
	}
	var all BlockList
	_ = all.AddSubnet(netip.MustParsePrefix("::/0"))
	if !all.Check(addr("1.2.3.4")) || !all.Check(addr("::ffff:1.2.3.4")) || !all.Check(addr("::1")) {
		t.Error("::/0 must block both families")
	}
	var four BlockList
	_ = four.AddSubnet(netip.MustParsePrefix("0.0.0.0/0"))
	if !four.Check(addr("1.2.3.4")) || !four.Check(addr("::ffff:1.2.3.4")) || four.Check(addr("::1")) {
		t.Error("0.0.0.0/0 must block IPv4 only, in both forms")
	}
}

func TestBlockListRules(t *testing.T) {
	b := blockList(t, []string{"123.123.123.123"}, [][2]string{{"10.0.0.1", "10.0.0.10"}}, []string{"8592:757c:efae:4e45::/64", "192.168.1.77/16"})
	_ = b.AddAddress(addr("::ffff:9.9.9.9"))
	want := []string{"Address: IPv6 ::ffff:9.9.9.9", "Subnet: IPv4 192.168.1.77/16", "Subnet: IPv6 8592:757c:efae:4e45::/64",
		"Range: IPv4 10.0.0.1-10.0.0.10", "Address: IPv4 123.123.123.123"}
	if got := b.Rules(); !slices.Equal(got, want) {
		t.Errorf("rules: %q", got)
	}
	for what, err := range map[string]error{
		"no address": b.AddAddress(netip.Addr{}), "no range": b.AddRange(netip.Addr{}, addr("::1")),
		"backwards": b.AddRange(addr("10.0.0.10"), addr("10.0.0.1")), "families": b.AddRange(addr("10.0.0.1"), addr("::1")),
		"no prefix": b.AddSubnet(netip.PrefixFrom(addr("10.0.0.1"), 33)),
	} {
		if !errors.Is(err, ErrBadRule) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if got := b.Rules(); !slices.Equal(got, want) {
		t.Errorf("a rule that was refused is in the list: %q", got)
	}
	if b.blocks(&net.UnixAddr{Name: "/s"}) || (*BlockList)(nil).blocks(&net.TCPAddr{}) {
		t.Error("a peer without an address is blocked")
	}
}

// FuzzBlockList builds a list from bytes and compares it with netip, rule by rule.
func FuzzBlockList(f *testing.F) {
	f.Add([]byte{0, 4, 1, 2, 3, 4, 1, 4, 9, 9, 9, 9, 10, 0, 0, 1, 2, 4, 8, 10, 1, 1, 1}, []byte{10, 2, 3, 4})
	f.Add([]byte{2, 6, 64, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}, []byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 1, 2, 3, 4})
	f.Add([]byte{2, 6, 90, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0}, []byte{1, 2, 3, 4})
	f.Fuzz(func(t *testing.T, program, asked []byte) {
		b := new(BlockList)
		take := func(n int) []byte {
			part := make([]byte, n)
			program = program[copy(part, program):]
			return part
		}
		address := func(kind byte) netip.Addr {
			n := 4
			if kind%2 == 0 {
				n = 16
			}
			if kind%4 == 2 { // an IPv4-mapped one
				return netip.AddrFrom16(netip.AddrFrom4([4]byte(take(4))).As16())
			}
			a, _ := netip.AddrFromSlice(take(n))
			return a
		}
		var oracle []func(a netip.Addr) bool // a in 16-byte form
		var probes []netip.Addr
		for len(program) > 2 && len(oracle) < 50 {
			what, kind := take(1)[0], take(1)[0]+1
			switch what % 3 {
			case 0:
				x := address(kind)
				if b.AddAddress(x) == nil {
					oracle = append(oracle, func(a netip.Addr) bool { return a.Unmap() == x.Unmap() })
				}
				probes = append(probes, x)
			case 1:
				x, y := address(kind), address(kind)
				if y.Less(x) {
					x, y = y, x
				}
				if err := b.AddRange(x, y); err != nil {
					t.Fatal(err)
				}
				lo, hi := netip.AddrFrom16(x.As16()), netip.AddrFrom16(y.As16())
				oracle = append(oracle, func(a netip.Addr) bool { return a.Compare(lo) >= 0 && a.Compare(hi) <= 0 })
				probes = append(probes, x, y)
			case 2:
				bits := int(take(1)[0])
				x := address(kind)
				p := netip.PrefixFrom(x, bits%(x.BitLen()+1))
				if err := b.AddSubnet(p); err != nil {
					t.Fatal(err)
				}
				oracle = append(oracle, func(a netip.Addr) bool {
					if x.Is4() {
						return a.Is4In6() && p.Contains(a.Unmap())
					}
					return p.Masked().Contains(a)
				})
				probes = append(probes, x, p.Masked().Addr())
			}
		}
		if a, ok := netip.AddrFromSlice(asked); ok {
			probes = append(probes, a)
		}
		for _, p := range probes {
			for _, a := range []netip.Addr{p, p.Prev(), p.Next(), p.Unmap()} {
				if !a.IsValid() {
					continue
				}
				long := netip.AddrFrom16(a.As16())
				want := slices.ContainsFunc(oracle, func(blocked func(netip.Addr) bool) bool { return blocked(long) })
				if b.Check(a) != want || b.Check(long) != want {
					t.Fatalf("%v: %v and as %v %v, want %v, rules %q", a, b.Check(a), long, b.Check(long), want, b.Rules())
				}
			}
		}
		if !slices.IsSortedFunc(b.spans, func(x, y span) int { return x.lo.Compare(y.lo) }) {
			t.Fatalf("spans: %v", b.spans)
		}
	})
}
