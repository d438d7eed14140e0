package steer

import (
	"errors"
	"math"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
)

func TestLeastLoadedIsEven(t *testing.T) {
	r := newRig(t, "tcp4", Steered, 8)
	r.serveAll()
	r.spread(800)
	even(t, r.held(), 100, 1)

	// Those with fewest are filled up first.
	r.workers[3].close(40)
	r.workers[5].close(40)
	r.spread(80)
	even(t, r.held(), 100, 1)
}

func even(t *testing.T, got []int, want, by int) {
	t.Helper()
	for _, n := range got {
		if n < want-by || n > want+by {
			t.Fatalf("%v, want %d±%d each", got, want, by)
		}
	}
}

// TestConcurrentClients: workers and clients all run at once.
func TestConcurrentClients(t *testing.T) {
	r := newRig(t, "tcp6", Steered, 8)
	r.serveAll()
	var workers, clients sync.WaitGroup
	var total atomic.Int64
	for _, w := range r.workers {
		workers.Go(func() {
			for total.Load() < 800 {
				p := []unix.PollFd{{Fd: int32(w.sock.Fd()), Events: unix.POLLIN}}
				_, _ = unix.Poll(p, 10)
				before := len(w.conns)
				w.accept()
				total.Add(int64(len(w.conns) - before))
			}
		})
	}
	var mu sync.Mutex
	for range 8 {
		clients.Go(func() {
			for range 100 {
				c, err := net.Dial(r.network, r.addr)
				if err != nil {
					t.Error(err)
					total.Add(1)
					continue
				}
				mu.Lock()
				r.clients = append(r.clients, c)
				mu.Unlock()
			}
		})
	}
	clients.Wait()
	workers.Wait()
	even(t, r.held(), 100, 2)
}

// TestStopped: a worker that accepts nothing does not get everything.
func TestStopped(t *testing.T) {
	r := newRig(t, "tcp4", Steered, 4)
	r.serveAll()
	r.spread(400, 0, 1, 2)
	if q := r.waiting()[3]; q < 99 || q > 101 {
		t.Fatalf("%d wait for the one that is stopped, want 100", q)
	}
	// The others have time again: it gets nothing more.
	for i := range 3 {
		r.workers[i].close(len(r.workers[i].conns))
	}
	before := r.waiting()[3]
	r.spread(200, 0, 1, 2)
	if q := r.waiting()[3]; q != before {
		t.Fatalf("%d wait, %d did before", q, before)
	}
}

func TestResting(t *testing.T) {
	r := newRig(t, "tcp4", Steered, 4)
	r.serveAll()
	r.must(r.g.Rest(1))
	r.spread(90)
	if got := r.held(); !slices.Equal(got, []int{30, 0, 30, 30}) {
		t.Fatalf("%v", got)
	}
	r.serve(1)
	r.spread(30)
	if got := r.held(); !slices.Equal(got, []int{30, 30, 30, 30}) {
		t.Fatalf("%v", got)
	}
	// With nobody ready the kernel's hash decides.
	for i := range r.socks {
		r.must(r.g.Rest(i))
	}
	r.spread(200)
	for i, n := range r.held() {
		if n == 30 {
			t.Errorf("member %d got none of 200", i)
		}
	}
}

func TestSuccessorBeginsAtZero(t *testing.T) {
	r := newRig(t, "tcp4", Steered, 2)
	r.serveAll()
	r.spread(100)
	old := r.workers[0]
	r.dial(10) // five for each wait
	next := r.worker(0)
	r.must(r.g.Serve(0, next.page))
	if n := r.load(0); n != 5 {
		t.Fatalf("the successor begins with %d, want the 5 that wait", n)
	}
	next.accept()
	r.workers[1].accept()
	next.close(5)
	if n := r.load(0); n != 0 {
		t.Fatalf("load %d after all was closed", n)
	}
	// What the predecessor closes is not the successor's.
	old.close(50)
	if n := r.load(0); n != 0 {
		t.Fatalf("load %d by what the predecessor closed", n)
	}
	r.spread(55)
	if got := []int{len(next.conns), len(r.workers[1].conns)}; !slices.Equal(got, []int{55, 55}) {
		t.Fatalf("%v", got)
	}
}

func TestOnly(t *testing.T) {
	for _, mode := range []Mode{Steered, Hash} {
		t.Run(mode.String(), func(t *testing.T) {
			r := newRig(t, "tcp4", mode, 3)
			r.serveAll()
			r.must(r.g.Rest(2))
			r.must(r.g.Only(2))
			r.spread(30)
			if got := r.held(); !slices.Equal(got, []int{0, 0, 30}) {
				t.Fatalf("%v", got)
			}
			r.must(r.g.Only(-1))
			r.spread(60)
			if got := r.held(); got[2] != 30 || got[0] == 0 || got[1] == 0 {
				t.Fatalf("%v", got)
			}
			if err := r.g.Only(7); !errors.Is(err, ErrNoMember) {
				t.Fatal(err)
			}
		})
	}
}

// TestAbsurd: whatever a worker writes into its page, the others keep their share.
func TestAbsurd(t *testing.T) {
	for name, lie := range map[string]counters{
		"closed more than accepted": {0, 1},
		"closed is negative":        {0, math.MaxUint64},
		"closed is 2^63":            {0, 1 << 63},
		"accepted is 2^63":          {1 << 63, 0},
		"accepted is negative":      {math.MaxUint64, 0},
		"both are 2^63":             {1 << 63, 1 << 63},
		"both are 2^62":             {1 << 62, 1 << 62},
		"both are negative":         {math.MaxUint64 - 5, math.MaxUint64 - 5},
		"a million of both":         {2 << 20, 2 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, "tcp4", Steered, 3)
			check := func(what string, n int) {
				t.Helper()
				before := r.held()
				r.spread(n, 0, 2)
				got := r.held()
				if a, b := got[0]-before[0], got[2]-before[2]; a < n/4 || b < n/4 {
					t.Fatalf("%s: the others got %d and %d of %d", what, a, b, n)
				}
			}
			r.serveAll()
			atomic.StoreUint64(&r.workers[1].data.accepted, lie.accepted)
			atomic.StoreUint64(&r.workers[1].data.closed, lie.closed)
			check("at once", 120)
			r.g.Settle()
			r.g.Settle()
			check("after Settle", 120)
			r.must(r.g.Serve(1, r.workers[1].page))
			check("after Serve", 500) // a newcomer without connections, which first gets what the others have
		})
	}
}

// TestBlind: with a worker that counts nothing the members take turns.
func TestBlind(t *testing.T) {
	r := newRig(t, "tcp4", Steered, 3)
	r.serve(0, 2)
	r.spread(20)
	r.worker(1)
	r.must(r.g.Serve(1, nil))
	r.spread(30)
	if got := r.held(); !slices.Equal(got, []int{20, 10, 20}) {
		t.Fatalf("%v", got)
	}
	if _, known := r.g.Load(1); known {
		t.Fatal("a load is known that nobody counts")
	}
	r.serve(1) // one that counts
	r.workers[1].accept()
	r.spread(20)
	if got := r.held(); !slices.Equal(got, []int{20, 20, 20}) {
		t.Fatalf("%v", got)
	}
}

func TestWrongPage(t *testing.T) {
	r := newRig(t, "tcp4", Steered, 2)
	r.serve(0)
	fd, err := unix.MemfdCreate("x", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	r.must(err)
	f := fdpass.NewFile(fd)
	defer func() { _ = f.Close() }()
	r.must(unix.Ftruncate(fd, 4096))
	if err := r.g.Serve(1, f); !errors.Is(err, unix.EINVAL) {
		t.Fatalf("a file that can be cut short: %v", err)
	}
	hash := New(Options{NoBPF: true})
	page, err := hash.NewPage()
	r.must(err)
	defer func() { _ = page.Close() }()
	if err := r.g.Serve(1, page); !errors.Is(err, unix.EINVAL) {
		t.Fatalf("a page of Hash mode: %v", err)
	}
	r.worker(1)
	r.spread(20)
	if got := r.held(); !slices.Equal(got, []int{10, 10}) {
		t.Fatalf("%v", got)
	}
	if err := r.g.Serve(5, nil); !errors.Is(err, ErrNoMember) {
		t.Fatal(err)
	}
}
