package dispatch

import (
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
	"github.com/f72e338e/supervisord/internal/proto"
)

// TestHostile: whatever a worker says on its channel, it loses at most its own.
func TestHostile(t *testing.T) {
	var reported atomic.Int64
	r := newRig(t, RoundRobin, Options{Report: func(_, worker uint64, err error) {
		if worker != 9 {
			reported.Add(1)
		}
	}})
	good := r.join(9, 0)
	var wg sync.WaitGroup
	good.serve(&wg)
	for i := range 200 {
		bad := r.join(uint64(100+i), 1)
		b := make([]byte, rand.IntN(20)+1)
		for j := range b {
			b[j] = byte(rand.IntN(4))
		}
		_ = bad.ch.Send(b)
		_ = bad.ch.Send([]byte{0, 0, 0, 0, 1, 0, 1, 0}) // accepts what it was not given
		if i%2 == 0 {
			_ = bad.ch.Close()
		}
		r.d.Leave(1, uint64(100+i))
	}
	for range 50 {
		if got := r.ask(); got != 9 {
			t.Fatalf("answered by %d", got)
		}
	}
	if reported.Load() == 0 {
		t.Error("no worker was reported")
	}
	_ = good.ch.Close()
	wg.Wait()
}

// TestNothingLostNothingTwice: workers come, refuse, die and leave all the time,
// and every connection is answered exactly once.
func TestNothingLostNothingTwice(t *testing.T) {
	before := openFiles(t)
	r := newRig(t, RoundRobin, Options{Batch: 8})
	anchor := r.join(1, 0)
	var wg sync.WaitGroup
	anchor.serve(&wg)
	stop := make(chan struct{})
	wg.Add(1)
	go func() {
		defer wg.Done()
		for id := uint64(2); ; id++ {
			select {
			case <-stop:
				return
			default:
			}
			f := r.join(id%200+2, int(id%7))
			for range rand.IntN(4) {
				h, files, err := f.read()
				if err != nil {
					break
				}
				if rand.IntN(3) == 0 { // dies with it, before it said anything
					fdpass.CloseAll(files)
					break
				}
				f.say(proto.Verdict{First: h.First, Count: h.Count, What: proto.Accepted})
				for _, file := range files {
					_, _ = unix.Write(file.Fd(), []byte{2})
					_ = file.Close()
				}
			}
			_ = f.ch.Close()
		}
	}()
	var clients sync.WaitGroup
	var answered atomic.Int64
	for range 8 {
		clients.Add(1)
		go func() {
			defer clients.Done()
			for range 250 {
				c, err := net.Dial("tcp", r.addr)
				if err != nil {
					t.Error(err)
					return
				}
				_ = c.SetDeadline(time.Now().Add(20 * time.Second))
				b, err := io.ReadAll(c)
				if err != nil || len(b) != 1 {
					t.Errorf("answer %v, %v", b, err)
					return
				}
				answered.Add(1)
				_ = c.Close()
			}
		}()
	}
	clients.Wait()
	close(stop)
	c := r.dial() // wakes the goroutine that reads, should it wait for one
	_ = c.Close()
	_ = anchor.ch.Close()
	r.d.Close()
	wg.Wait()
	if answered.Load() != 2000 {
		t.Errorf("%d of 2000 answered", answered.Load())
	}
	if after := openFiles(t); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

func openFiles(t testing.TB) int {
	t.Helper()
	e, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(e)
}
