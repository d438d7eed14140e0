package dispatch

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/internal/proto"
)

// TestFlood: a worker that says something all the time keeps nobody else waiting.
func TestFlood(t *testing.T) {
	r := newRig(t, RoundRobin, Options{})
	bad, good := r.join(1, 0), r.join(2, 1)
	r.d.Admit(1, false)
	var wg sync.WaitGroup
	good.serve(&wg)
	raw, err := bad.ch.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var stop atomic.Bool
	b := make([]byte, proto.HandoverSize)
	proto.Verdict{What: proto.Room}.Put(b)
	for range 2 {
		wg.Go(func() {
			_ = raw.Control(func(fd uintptr) {
				for !stop.Load() {
					_ = unix.Sendmsg(int(fd), b, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
				}
			})
		})
	}
	var worst time.Duration
	for range 200 {
		begun := time.Now()
		if got := r.ask(); got != 2 {
			t.Errorf("answered by %d", got)
		}
		worst = max(worst, time.Since(begun))
	}
	stop.Store(true)
	t.Logf("slowest of 200 answers: %v", worst)
	_ = good.ch.Close()
	wg.Wait()
}

// TestVerdictsAreReadInPortions: without a bound the thread reads for as long as
// somebody writes.
func TestVerdictsAreReadInPortions(t *testing.T) {
	r := newRig(t, RoundRobin, Options{})
	f := r.join(1, 0)
	r.d.do(func() { // on the dispatcher's thread, which so reads nothing meanwhile
		for range 6 {
			f.say(proto.Verdict{What: proto.Room})
		}
		m := r.d.handles[1].members[0]
		r.d.verdicts(m, 4)
		left := 0
		for {
			if _, errno := r.d.scratch.recv(m.fd); errno != 0 {
				break
			}
			left++
		}
		if left != 2 {
			t.Errorf("%d of 6 are left after 4 were read", left)
		}
	})
}
