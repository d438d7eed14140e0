//go:build linux

package worker

import (
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
	"github.com/f72e338e/supervisord/internal/dispatch"
	"github.com/f72e338e/supervisord/internal/proto"
)

// A program that closes its listener has answered for connections which it has not
// taken yet. Its Accept returns them first: nobody else will.
func TestCloseLosesNothingHanded(t *testing.T) {
	noLeak(t)
	h := newHanding(t)
	waited := h.dials(6)
	l := h.listener(drained)
	first, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	later := h.dials(1)
	h.accepted(7)
	_ = l.Close()
	var greeted sync.WaitGroup
	greeted.Go(func() { greet(first, "hello") })
	for {
		c, err := l.Accept()
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				t.Errorf("accept: %v", err)
			}
			break
		}
		greeted.Go(func() { greet(c, "hello") })
	}
	h.hear(waited, "hello")
	greeted.Wait()
	h.answers(h.listener(another))
	h.hear(later, "other")
}

// A drain begins at the very moment in which connections arrive.
func TestRetireWhileItReceives(t *testing.T) {
	noLeak(t)
	h := newHanding(t)
	other := h.listener(another)
	h.d.Admit(another, false)
	h.answers(other)
	for range 100 {
		l := h.listener(drained)
		var loop sync.WaitGroup
		loop.Go(func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				loop.Go(func() { greet(c, "other") })
			}
		})
		h.d.Admit(drained, false)
		clients := h.dials(8)
		h.d.Admit(drained, true) // all in one message
		h.d.Admit(drained, false)
		l.retire()
		h.d.Admit(another, true)
		h.hear(clients, "other") // of whomever
		h.d.Admit(another, false)
		loop.Wait()
	}
}

// A worker that has no descriptor for what it is handed says so, and another gets
// it. It is offered connections again as soon as it wants one.
func TestHandedWithoutDescriptors(t *testing.T) {
	noLeak(t)
	h := newHanding(t)
	l := h.listener(drained)
	clients := h.dials(1)
	h.accepted(1) // in the channel

	var limit unix.Rlimit
	if err := unix.Prlimit(0, unix.RLIMIT_NOFILE, nil, &limit); err != nil {
		t.Fatal(err)
	}
	if err := unix.Prlimit(0, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 1, Max: limit.Max}, nil); err != nil {
		t.Fatal(err)
	}
	_, err := l.Accept()
	if err := unix.Prlimit(0, unix.RLIMIT_NOFILE, &limit, nil); err != nil {
		t.Fatal(err)
	}
	var temporary interface{ Temporary() bool } // what net/http asks before it tries again
	if !errors.Is(err, unix.EMFILE) || !errors.As(err, &temporary) || !temporary.Temporary() {
		t.Fatalf("accept without descriptors: %v", err)
	}
	other := h.listener(another)
	h.answers(other)
	h.hear(clients, "other")

	clients = h.dials(1)
	h.hear(clients, "other") // the first one has said nothing since
	_ = other.Close()
	clients = h.dials(1)
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	h.hear(clients, "")
}

// A worker that may have two connections, and was handed both at once, closes the first
// before it takes the second: there is room for a third.
func TestRoomIsTold(t *testing.T) {
	h := newHanding(t)
	h.dials(3)
	w := alone(t)
	w.identity.Store(&proto.Welcome{MaxConnections: 2})
	near, far, err := fdpass.Pair()
	if err != nil {
		t.Fatal(err)
	}
	page, _ := fdpass.NewPage("connections")
	ours, _ := page.Dup()
	end, _ := near.Detach()
	mine, _ := far.Detach()
	copied, _ := mine.Dup()
	if err := h.d.Join(1, dispatch.Member{Worker: 7, Limit: 2, Channel: end, Far: copied, Page: ours, Admitted: true}); err != nil {
		t.Fatal(err)
	}
	c, err := newChannel(mine, page, h.grant())
	if err != nil {
		t.Fatal(err)
	}
	l, err := newListener(w, c, func() { h.d.Leave(1, 7) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	first, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	for range 3 { // it has seen that both were read
		h.d.Counts(1)
	}
	_ = first.Close()
	second, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	_ = second
	_ = c.SetDeadline(time.Now().Add(patience))
	third, err := l.Accept()
	if err != nil {
		accepted, handed, _ := h.d.Counts(1)
		t.Fatalf("one is open of two that may be, one waits: %v (%d accepted, %d handed over)", err, accepted, handed)
	}
	_ = third
}

// What the kernel dropped all the same is counted out, and another time is asked for.
func TestHandedAndLost(t *testing.T) {
	noLeak(t)
	h := newHanding(t)
	l := h.listener(drained)
	c := l.hand
	err := c.receive(func(b []byte, _ int, _ func([]byte) int) (int, []*fdpass.File, error) {
		proto.Handover{Count: 3}.Put(b)
		return 0, nil, fdpass.ErrFilesLost
	})
	if !errors.Is(err, unix.EMFILE) || c.page.counts[1] != 3 || !c.full {
		t.Errorf("%v, %d counted out, full %v", err, c.page.counts[1], c.full)
	}
}
