package steer

import (
	"errors"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// TestDriftByPredecessor: both hold the socket in a roll-out, and what the one that
// leaves accepts was counted for the one that came.
func TestDriftByPredecessor(t *testing.T) {
	r := newRig(t, "tcp4", Steered, 2)
	r.serveAll()
	old := r.workers[0]
	r.serve(0)
	r.dial(20)
	old.accept()
	r.workers[1].accept()
	if n := r.load(0); n != 10 {
		t.Fatalf("load %d, want 10", n)
	}
	r.g.Settle()
	if n := r.load(0); n != 10 {
		t.Fatalf("load %d after one look, want 10: these could be on the way", n)
	}
	r.g.Settle()
	if n := r.load(0); n != 0 {
		t.Fatalf("load %d, want 0", n)
	}
	r.g.Settle()
	if n := r.load(0); n != 0 {
		t.Fatalf("load %d, want 0 still", n)
	}
	if n := r.load(1); n != 10 {
		t.Fatalf("load %d of a member that nothing was wrong with, want 10", n)
	}
}

// TestDriftByHandshake: a pick whose handshake never ends.
func TestDriftByHandshake(t *testing.T) {
	r := newRig(t, "tcp4", Steered, 1)
	r.serve(0)
	r.g.k.forgive(0, -7) // as 7 such picks
	r.spread(3)
	for range 2 {
		r.g.Settle()
	}
	if n := r.load(0); n != 3 {
		t.Fatalf("load %d, want 3", n)
	}
	// The other way: it accepted what was counted for its predecessor.
	r.g.k.forgive(0, 9)
	if n := r.load(0); n != 0 {
		t.Fatalf("load %d, want 0", n)
	}
	for range 2 {
		r.g.Settle()
	}
	if n := r.load(0); n != 3 {
		t.Fatalf("load %d, want 3", n)
	}
}

// TestQueueIsNoDrift: what waits for a slow worker is its load, however long.
func TestQueueIsNoDrift(t *testing.T) {
	r := newRig(t, "tcp4", Steered, 2)
	r.serveAll()
	r.dial(40)
	for range 10 {
		r.g.Settle()
	}
	if n := r.load(0); n != 20 {
		t.Fatalf("load %d, want 20", n)
	}
	r.drain()
	for range 3 {
		r.g.Settle()
	}
	if n := r.load(0); n != 20 {
		t.Fatalf("load %d once accepted, want 20", n)
	}
}

// TestLate: SO_REUSEPORT set on a socket that listens already, before others join.
func TestLate(t *testing.T) {
	for _, mode := range []Mode{Steered, Hash} {
		t.Run(mode.String(), func(t *testing.T) {
			r := newRig(t, "tcp4", mode, 0)
			first := r.bind(false)
			if err := r.g.Add(0, first); !errors.Is(err, unix.EINVAL) {
				t.Fatalf("without SO_REUSEPORT: %v", err)
			}
			r.must(unix.SetsockoptInt(first.Fd(), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
			r.add(0)
			r.serve(0)
			r.spread(5)
			r.bind(true)
			r.add(1)
			r.serve(1)
			if r.g.Mode() != mode {
				t.Fatal(r.g.Why())
			}
			r.spread(60)
			got := r.held()
			if mode == Steered && (got[0] < 30 || got[0] > 35) || got[0] < 10 || got[1] < 10 {
				t.Fatalf("%v", got)
			}
			r.must(r.g.Rest(0))
			r.spread(20)
			if again := r.held(); again[0] != got[0] {
				t.Fatalf("the one that rests had %d and has %d", got[0], again[0])
			}
		})
	}
}

// TestMended: a listener that was shut down leaves the group, and joins it again at
// the end by listen(2). The last takes its place.
func TestMended(t *testing.T) {
	for _, mode := range []Mode{Steered, Hash} {
		t.Run(mode.String(), func(t *testing.T) {
			r := newRig(t, "tcp4", mode, 4)
			r.serveAll()
			for _, i := range []int{1, 3, 1, 0} {
				fd := r.socks[i].Fd()
				r.must(unix.Shutdown(fd, unix.SHUT_RD))
				r.must(unix.Listen(fd, 4096))
				r.add(i)
				for rest := range 4 {
					before := r.held()
					r.must(r.g.Rest(rest))
					r.spread(40)
					after := r.held()
					for k := range after {
						if (after[k] == before[k]) != (k == rest) {
							t.Fatalf("mended %d, %d rests: %v, then %v", i, rest, before, after)
						}
					}
					r.must(r.g.Serve(rest, r.workers[rest].page))
				}
			}
		})
	}
}

// TestGone: a listener that was shut down and not yet mended is one that the kernel
// cannot lead to.
func TestGone(t *testing.T) {
	r := newRig(t, "tcp4", Steered, 2)
	r.serveAll()
	r.must(unix.Shutdown(r.socks[0].Fd(), unix.SHUT_RD))
	for range 20 {
		r.dial(1)
		r.workers[1].accept()
	}
	if got := r.held(); !slices.Equal(got, []int{0, 20}) {
		t.Fatalf("%v", got)
	}
}
