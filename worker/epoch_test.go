//go:build linux

package worker

import (
	"net"
	"slices"
	"testing"

	"github.com/f72e338e/supervisord/internal/proto"
)

// A new master is told everything that matters, in this order, whatever the dead
// one had read.
func TestNewEpoch(t *testing.T) {
	w, m := joined(t)
	f, b := bound(t, "tcp", "127.0.0.1")
	m.granted(w, f, b, 21)
	_ = w.Ready()
	_ = w.Status("fine")
	until(m, anyOf[proto.Status])
	listeners := make(chan net.Listener, 1)
	go func() {
		l, err := w.ListenName(t.Context(), "main")
		if err != nil {
			t.Error(err)
		}
		listeners <- l
	}()
	open, _ := expect[proto.Listen](m)

	m.send(proto.Envelope{Body: welcome(2)})
	e, h := expect[proto.Hello](m)
	if h.Epoch != 2 || h.State != proto.StateReady || !slices.Equal(h.Holds, []proto.HandleID{21}) || h.Counts == nil {
		t.Fatalf("hello: %+v", h)
	}
	if again, l := expect[proto.Listen](m); again.ID != open.ID || l.Name != "main" {
		t.Fatalf("open request: %+v, was %+v", again, open)
	}
	expect[proto.Ready](m)
	if _, s := expect[proto.Status](m); s.Text != "fine" {
		t.Fatalf("status: %+v", s)
	}

	// The answer to that hello and a welcome of the same epoch change nothing.
	m.send(proto.Envelope{Re: e.ID, Body: welcome(2)})
	m.send(proto.Envelope{Body: welcome(2)})
	f2, b2 := bound(t, "tcp", "127.0.0.1")
	grant := proto.Envelope{Re: open.ID, Body: proto.Grant{Handle: 22, Network: "tcp", Address: b2.Address}}
	m.send(grant, f2)
	l := <-listeners
	defer l.Close()
	// The dead master's grant of the same request comes too: it is held already.
	m.send(grant, f2)
	m.send(proto.Envelope{ID: 1, Body: proto.Ping{}})
	expect[proto.Pong](m)

	w.Drain("own")
	expect[proto.Draining](m)
	m.send(proto.Envelope{Body: welcome(3)})
	if _, h := expect[proto.Hello](m); h.State != proto.StateDraining || !slices.Equal(h.Holds, []proto.HandleID{21, 22}) {
		t.Fatalf("hello: %+v", h)
	}
	if _, d := expect[proto.Draining](m); d.Reason != "own" {
		t.Fatalf("draining: %+v", d)
	}
}

// The first master died before it answered: the next one did not see the hello.
func TestNewEpochBeforeWelcome(t *testing.T) {
	w, m := supervised(t)
	first, _ := expect[proto.Hello](m)
	m.send(proto.Envelope{Body: welcome(2)})
	if _, err := w.await(t.Context()); err != nil {
		t.Fatal(err)
	}
	again, h := expect[proto.Hello](m)
	if again.ID == first.ID || h.Epoch != 2 {
		t.Fatalf("hello: %+v", again)
	}
	m.send(proto.Envelope{Re: first.ID, Body: welcome(2)})
	m.send(proto.Envelope{Re: again.ID, Body: welcome(2)})
	m.send(proto.Envelope{ID: 1, Body: proto.Ping{}})
	expect[proto.Pong](m)
}
