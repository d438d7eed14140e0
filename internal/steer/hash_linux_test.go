package steer

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestHashTCP(t *testing.T) {
	for _, network := range []string{"tcp4", "tcp6"} {
		t.Run(network, func(t *testing.T) {
			r := newRig(t, network, Hash, 5)
			if !errors.Is(r.g.Why(), ErrNoBPF) {
				t.Fatal(r.g.Why())
			}
			r.serveAll()
			r.spread(200)
			for i, n := range r.held() {
				if n < 10 || n > 90 {
					t.Errorf("member %d got %d of 200 by the kernel's hash", i, n)
				}
				if load := r.load(i); load != int64(n) {
					t.Errorf("member %d has load %d, want %d", i, load, n)
				}
			}
			for _, rest := range [][]int{{1}, {1, 4}, {0, 1, 4}, {0, 1, 2, 4}} {
				for _, i := range rest {
					r.must(r.g.Rest(i))
				}
				before := r.held()
				r.spread(100)
				for i, n := range r.held() {
					if got := n - before[i]; (got == 0) != slices.Contains(rest, i) || got != 0 && got < 50/(5-len(rest)) {
						t.Errorf("%v rest: member %d got %d of 100", rest, i, got)
					}
				}
			}
			r.must(r.g.Rest(3)) // nobody is ready: all are as good as each other
			before := r.held()
			r.spread(100)
			for i, n := range r.held() {
				if n == before[i] {
					t.Errorf("nobody ready: member %d got nothing", i)
				}
			}
		})
	}
}

// TestSameAddressSameMember: a TCP client that comes again from its port is led to
// the same member.
func TestSameAddressSameMember(t *testing.T) {
	for _, network := range []string{"tcp4", "tcp6"} {
		r := newRig(t, network, Hash, 4)
		r.serve(0, 2, 3)
		r.worker(1)
		where := map[int]int{}
		for range 3 {
			for port := 20000; port < 20040; port++ {
				d := net.Dialer{LocalAddr: &net.TCPAddr{Port: port}, Timeout: 5 * time.Second}
				c, err := d.Dial(network, r.addr)
				if errors.Is(err, unix.EADDRINUSE) {
					continue // somebody else's
				}
				r.must(err)
				_ = c.(*net.TCPConn).SetLinger(0)
				before := r.held()
				r.drain()
				for i, n := range r.held() {
					if n == before[i] {
						continue
					}
					if was, ok := where[port]; ok && was != i {
						t.Fatalf("%s: port %d went to %d, then to %d", network, port, was, i)
					}
					where[port] = i
				}
				_ = c.Close()
			}
		}
	}
}

// TestFlowsStick: packets of a flow reach one member, also while others come and go.
func TestFlowsStick(t *testing.T) {
	for _, network := range []string{"udp4", "udp6"} {
		t.Run(network, func(t *testing.T) {
			r := newRig(t, network, Hash, 5)
			if !errors.Is(r.g.Why(), ErrDatagram) {
				t.Fatal(r.g.Why())
			}
			f := newFlows(r, 100)
			for i := range r.socks {
				r.must(r.g.Serve(i, nil))
			}
			home := f.where()
			for i := range r.socks {
				if n := count(home, i); n < 5 || n > 50 {
					t.Errorf("%d of 100 flows lead to member %d", n, i)
				}
			}
			resting := map[int]bool{}
			for _, i := range []int{3, 0, 4, 1} {
				r.must(r.g.Rest(i))
				resting[i] = true
				first, second := f.where(), f.where()
				for k := range home {
					switch {
					case first[k] != second[k]:
						t.Fatalf("flow %d went to %d, then to %d", k, first[k], second[k])
					case resting[first[k]]:
						t.Fatalf("%d rests and got flow %d", first[k], k)
					case !resting[home[k]] && first[k] != home[k]:
						t.Fatalf("flow %d left %d for %d when others began to rest", k, home[k], first[k])
					}
				}
			}
			for i := range r.socks {
				r.must(r.g.Serve(i, nil))
			}
			if now := f.where(); !slices.Equal(now, home) {
				t.Fatalf("all are ready again, and flows lead elsewhere:\n%v\n%v", home, now)
			}
			r.must(r.g.Only(2))
			if now := f.where(); count(now, 2) != len(now) {
				t.Fatalf("only 2: %v", now)
			}
		})
	}
}

func count(list []int, n int) (c int) {
	for _, have := range list {
		if have == n {
			c++
		}
	}
	return c
}

// flows are UDP clients, each with its own port.
type flows struct {
	r     *rig
	conns []net.Conn
	names map[string]int
}

func newFlows(r *rig, n int) *flows {
	f := &flows{r: r, names: map[string]int{}}
	for i := range n {
		c, err := net.Dial(r.network, r.addr)
		r.must(err)
		r.t.Cleanup(func() { _ = c.Close() })
		f.conns = append(f.conns, c)
		f.names[fmt.Sprint(i)] = i
	}
	return f
}

// where sends a packet in each flow, and returns which member got it.
func (f *flows) where() []int {
	f.r.t.Helper()
	got := make([]int, len(f.conns))
	for i, c := range f.conns {
		got[i] = -1
		_, err := c.Write(fmt.Append(nil, i))
		f.r.must(err)
	}
	b := make([]byte, 16)
	for at, s := range f.r.socks {
		for {
			n, _, err := unix.Recvfrom(s.Fd(), b, 0)
			if errors.Is(err, unix.EAGAIN) {
				break
			}
			f.r.must(err)
			got[f.names[string(b[:n])]] = at
		}
	}
	if slices.Contains(got, -1) {
		f.r.t.Fatalf("packets are lost: %v", got)
	}
	return got
}

// TestLargeFilter: the filter of the largest group, half of which rests, is small
// enough for the kernel.
func TestLargeFilter(t *testing.T) {
	r := newRig(t, "udp4", Hash, MaxMembers)
	for i := 0; i < MaxMembers; i += 2 {
		r.must(r.g.Serve(i, nil))
	}
	f := newFlows(r, 300)
	for k, at := range f.where() {
		if at%2 == 1 {
			t.Fatalf("%d rests and got flow %d", at, k)
		}
	}
	t.Logf("%d instructions", len(r.g.filter()))
}
