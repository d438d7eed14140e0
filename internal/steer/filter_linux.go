package steer

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// apply brings what is attached to the sockets up to date, in Hash mode.
func (g *Group) apply() error {
	if g.k != nil || len(g.order) == 0 {
		return nil
	}
	f := g.filter()
	if f == nil {
		return g.detach()
	}
	prog := unix.SockFprog{Len: uint16(len(f)), Filter: &f[0]}
	return g.each(func(fd int) error {
		return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF, &prog)
	})
}

// detach takes off what is attached: ours, or in Hash mode also a predecessor's.
func (g *Group) detach() error {
	return g.each(func(fd int) error {
		err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_REUSEPORT_BPF, 0)
		if errors.Is(err, unix.ENOENT) { // nothing was
			return nil
		}
		return err
	})
}

// each calls f for one socket after the other until one has a group: all have the
// same. A socket alone that got SO_REUSEPORT late has none (EINVAL), and needs none.
func (g *Group) each(f func(fd int) error) error {
	for _, id := range g.order {
		fd := g.members[id].socket.Fd()
		if fd < 0 {
			continue
		}
		switch err := f(fd); {
		case errors.Is(err, unix.EINVAL):
		case err != nil:
			return fmt.Errorf("setsockopt SO_REUSEPORT: %w", err)
		default:
			return nil
		}
	}
	return nil
}

// filter returns the classic program, which returns the place of a socket in the
// group; nil when the kernel's own hash does. It loads from the network header, as
// data begins behind the transport header here.
//
//	h = hash of the client's address and port
//	a = h % n
//	if a is ready, return it
//	return ready[(h / n) % len(ready)]
//
// So flows of members that are ready stay where they are when others begin to rest
// or come back. That is why datagrams have it also when all are ready.
func (g *Group) filter() []unix.SockFilter {
	var ready, resting []uint32
	for at, id := range g.order {
		switch {
		case id == g.only:
			return []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: uint32(at)}}
		case g.members[id].ready:
			ready = append(ready, uint32(at))
		default:
			resting = append(resting, uint32(at))
		}
	}
	if len(ready) == 0 {
		resting = nil
	}
	if len(resting) == 0 && !g.o.Datagram {
		return nil
	}
	f := hash()
	n := uint32(len(g.order))
	f = append(f, unix.SockFilter{Code: unix.BPF_ST, K: 0}, op(unix.BPF_ALU|unix.BPF_MOD|unix.BPF_K, n))
	if len(resting) > 0 {
		for i, at := range resting {
			rest := len(resting) - 1 - i
			f = append(f, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: at},
				op(unix.BPF_JMP|unix.BPF_JA, uint32(2*rest+1)))
		}
	}
	f = append(f, op(unix.BPF_RET|unix.BPF_A, 0))
	if len(resting) == 0 {
		return f
	}
	f = append(f, op(unix.BPF_LD|unix.BPF_MEM, 0), op(unix.BPF_ALU|unix.BPF_DIV|unix.BPF_K, n),
		op(unix.BPF_ALU|unix.BPF_MOD|unix.BPF_K, uint32(len(ready))))
	for i, at := range ready {
		f = append(f, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: uint32(i)}, op(unix.BPF_RET|unix.BPF_K, at))
	}
	return append(f, op(unix.BPF_RET|unix.BPF_K, ready[0]))
}

// hash returns the beginning of the filter, which leaves the hash in A: the client's
// port and address, IPv4 or IPv6. With IPv6 extension headers it takes the begin of
// the first one for the port, which is the same in all packets of a flow.
//
// It has no secret: a client can find out how to reach the member that others go to
// by its own address and port only, and flows stay where they are when the master is
// replaced.
func hash() []unix.SockFilter {
	const (
		net    = 0xfff00000 // SKF_NET_OFF: the network header
		word   = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		half   = unix.BPF_LD | unix.BPF_H | unix.BPF_ABS
		octet  = unix.BPF_LD | unix.BPF_B | unix.BPF_ABS
		mul    = unix.BPF_ALU | unix.BPF_MUL | unix.BPF_K
		xor    = unix.BPF_ALU | bpfXOR | unix.BPF_X
		rsh    = unix.BPF_ALU | unix.BPF_RSH | unix.BPF_K
		tax    = unix.BPF_MISC | unix.BPF_TAX
		prime1 = 0x9e3779b1
		prime2 = 0x85ebca6b
	)
	mix := func(load unix.SockFilter) []unix.SockFilter { // X = (X ^ word) * prime1
		return []unix.SockFilter{load, op(xor, 0), op(mul, prime1), op(tax, 0)}
	}
	var v6 []unix.SockFilter
	v6 = append(v6, op(half, net+40), op(mul, prime1), op(tax, 0))
	for at := uint32(8); at < 24; at += 4 {
		v6 = append(v6, mix(op(word, net+at))...)
	}
	var v4 []unix.SockFilter // the header's length is in words in the low half of its first octet
	v4 = append(v4, op(octet, net), op(unix.BPF_ALU|unix.BPF_AND|unix.BPF_K, 15), op(unix.BPF_ALU|unix.BPF_LSH|unix.BPF_K, 2), op(tax, 0),
		op(unix.BPF_LD|unix.BPF_H|unix.BPF_IND, net), op(mul, prime1), op(tax, 0))
	v4 = append(v4, mix(op(word, net+12))...)
	v4 = append(v4, op(unix.BPF_JMP|unix.BPF_JA, uint32(len(v6))))

	f := []unix.SockFilter{op(octet, net), op(rsh, 4), {Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: uint8(len(v4)), K: 4}}
	f = append(append(f, v4...), v6...)
	// X holds the sum; mix its upper half into the lower, which the remainder is made of.
	return append(f, op(unix.BPF_MISC|unix.BPF_TXA, 0), op(rsh, 16), op(xor, 0), op(mul, prime2), op(tax, 0), op(rsh, 13), op(xor, 0))
}

const bpfXOR = 0xa0 // BPF_XOR, an addition of Linux: linux/bpf_common.h

func op(code uint16, k uint32) unix.SockFilter { return unix.SockFilter{Code: code, K: k} }
