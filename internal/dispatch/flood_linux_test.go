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
	proto.Room.Put(b)
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
	r.leave(good)
	wg.Wait()
}

// TestWordsAreHeardInPortions: without a bound the thread reads for as long as
// somebody writes, and without looking again it would miss the rest.
func TestWordsAreHeardInPortions(t *testing.T) {
	r := newRig(t, RoundRobin, Options{})
	f := r.join(1, 0)
	r.d.do(func() { // on the dispatcher's thread, which so reads nothing meanwhile
		for range 6 {
			f.say(proto.Room)
		}
		f.say(proto.Full)
		m := r.d.handles[1].members[0]
		r.d.listen(m, 4)
		if m.full {
			t.Error("heard the seventh word of four")
		}
	})
	r.settle()
	r.d.do(func() {
		if !r.d.handles[1].members[0].full {
			t.Error("did not hear the rest")
		}
	})
}
