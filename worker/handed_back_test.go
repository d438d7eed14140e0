//go:build linux

package worker

import (
	"errors"
	"net"
	"sync"
	"testing"
)

// A program closes its listener and takes no more: what came together with a
// connection that it took goes to another worker.
func TestCloseGivesBack(t *testing.T) {
	noLeak(t)
	h := newHanding(t)
	w, m := joined(t)
	h.grants(m)
	clients := h.dials(6)
	l, err := w.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	var loop sync.WaitGroup
	loop.Go(func() { greet(c, "hello") })
	h.answers(h.listener(another))
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if n := l.(*listener).hand.waiting(); n != 0 {
		t.Errorf("%d are left", n)
	}
	h.hear(clients[:1], "hello")
	h.hear(clients[1:], "other")
	loop.Wait()
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// A worker that cannot make use of its channel ends it, and others get what is in it.
func TestChannelWithoutPage(t *testing.T) {
	noLeak(t)
	h := newHanding(t)
	clients := h.dials(3)
	file, page, err := h.channel(drained)
	if err != nil {
		t.Fatal(err)
	}
	_ = page.Close()
	h.accepted(3)
	unfit, err := file.Dup() // of all things
	if err != nil {
		t.Fatal(err)
	}
	if _, err := newChannel(file, unfit, h.grant()); err == nil {
		t.Fatal("a socket is a page")
	}
	h.answers(h.listener(another))
	h.hear(clients, "other")
}
