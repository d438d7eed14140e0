//go:build linux

package worker

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/f72e338e/supervisord/fdpass"
	"github.com/f72e338e/supervisord/internal/dispatch"
	"github.com/f72e338e/supervisord/internal/proto"
)

// handing is a master that dispatches one socket, handle 1.
type handing struct {
	t    *testing.T
	d    *dispatch.Dispatcher
	addr string
}

// The workers of these tests.
const (
	drained = 7 // as welcome says
	another = 8
)

func newHanding(t *testing.T) *handing {
	t.Helper()
	f, b := bound(t, "tcp", "127.0.0.1")
	d, err := dispatch.New(dispatch.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	own, err := f.Dup()
	if err != nil {
		t.Fatal(err)
	}
	d.Add(1, dispatch.RoundRobin)
	if err := d.AddSocket(1, own); err != nil {
		t.Fatal(err)
	}
	return &handing{t: t, d: d, addr: b.Address}
}

// channel makes what a worker is granted.
func (h *handing) channel(worker uint64) (channel, page *fdpass.File, err error) {
	near, far, err := fdpass.Pair()
	if err != nil {
		return nil, nil, err
	}
	page, err = fdpass.NewPage("connections")
	if err != nil {
		return nil, nil, err
	}
	ours, derr := page.Dup()
	end, nerr := near.Detach()
	channel, ferr := far.Detach()
	copied, cerr := channel.Dup()
	if err := errors.Join(derr, nerr, ferr, cerr); err != nil {
		return nil, nil, err
	}
	return channel, page, h.d.Join(1, dispatch.Member{Worker: worker, Slot: int(worker), Channel: end, Far: copied, Page: ours, Admitted: true})
}

func (h *handing) grant() proto.Grant {
	return proto.Grant{Handle: 1, Network: "tcp", Address: h.addr, Policy: "round_robin"}
}

// grants answers what the worker listens on, until the end of the test.
func (h *handing) grants(m *master) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for e := range m.in {
			switch e.Body.(type) {
			case proto.Listen:
			case proto.Close:
				h.d.Leave(1, drained)
				continue
			case proto.Pass:
				h.passes(m, e, <-m.files)
				continue
			default:
				continue
			}
			channel, page, err := h.channel(drained)
			if err == nil {
				err = m.conn.Send(proto.Envelope{Re: e.ID, Body: h.grant()}, channel, page)
			}
			if err != nil {
				h.t.Errorf("grant: %v", err)
			}
			fdpass.CloseAll([]*fdpass.File{channel, page})
		}
	}()
	h.t.Cleanup(func() { _ = m.conn.Close(); <-done })
}

// passes gives a connection to another worker, if there is one.
func (h *handing) passes(m *master, e proto.Envelope, f *fdpass.File) {
	reluctant := e.Body.(proto.Pass).Reluctant
	var body proto.Message = proto.Passed{}
	if slices.Contains(h.d.Joined(1), another) {
		if err := h.d.Pass(1, dispatch.Passed{From: drained, Reluctant: reluctant, Connection: f}); err != nil {
			h.t.Errorf("pass: %v", err)
		}
	} else {
		_ = f.Close()
		body = proto.Error{Code: "ENOENT", Errno: int(syscall.ENOENT), Message: "nobody"}
	}
	if err := m.conn.Send(proto.Envelope{Re: e.ID, Body: body}); err != nil {
		h.t.Errorf("passed: %v", err)
	}
}

// listener is a worker's part in the socket, without the link.
func (h *handing) listener(worker uint64) *listener {
	h.t.Helper()
	file, page, err := h.channel(worker)
	if err != nil {
		h.t.Fatal(err)
	}
	c, err := newChannel(file, page, h.grant())
	if err != nil {
		h.t.Fatal(err)
	}
	l, err := newListener(alone(h.t), c, func() { h.d.Leave(1, worker) }) // as the master does
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { _ = l.Close() })
	return l
}

// dials connects so many clients, which wait in the kernel or where they are sent.
func (h *handing) dials(n int) (clients []*client) {
	h.t.Helper()
	for range n {
		clients = append(clients, dial(h.t, h.addr))
	}
	return clients
}

// accepted waits until the master has so many from the kernel, in all.
func (h *handing) accepted(n uint64) {
	h.t.Helper()
	eventually(h.t, "connections accepted by the master", func() bool {
		accepted, _, _ := h.d.Counts(1)
		return accepted == n
	})
}

// answers lets a worker answer "other" until it is closed.
func (h *handing) answers(l *listener) {
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
	h.t.Cleanup(func() { _ = l.Close(); loop.Wait() })
}

// greet says one word to a client and waits for its end.
func greet(c net.Conn, word string) {
	_, _ = io.WriteString(c, word)
	_ = c.(interface{ CloseWrite() error }).CloseWrite()
	_, _ = io.Copy(io.Discard, c)
	_ = c.Close()
}

// hear reads what each client hears, and checks it.
func (h *handing) hear(clients []*client, want string) {
	h.t.Helper()
	for i, c := range clients {
		_ = c.Conn.(*net.TCPConn).CloseWrite()
		_ = c.SetDeadline(time.Now().Add(patience))
		if b, err := io.ReadAll(c); err != nil || string(b) != want {
			h.t.Errorf("client %d heard %q, %v; want %q", i, b, err, want)
		}
	}
}

// A worker that serves HTTP drains with connections that it has answered for and
// with more in its channel: all of these are served, and what was not handed over
// goes to another.
func TestServeDrainsWhatWasHanded(t *testing.T) {
	noLeak(t)
	h := newHanding(t)
	w, m := joined(t)
	h.grants(m)
	waited := h.dials(6) // come in one hand-over
	l, err := w.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	hold := make(chan struct{})
	srv := &http.Server{
		Handler:     http.HandlerFunc(hello),
		ConnContext: func(ctx context.Context, _ net.Conn) context.Context { <-hold; return ctx },
	}
	s := serveOn(t, w, srv, l)
	h.accepted(6)
	waited = append(waited, h.dials(1)...)
	h.accepted(7) // in the channel
	later := h.dials(3)
	h.d.Admit(drained, false)
	m.send(proto.Envelope{Body: proto.Drain{DeadlineMS: 60_000, Reason: "rollout"}})
	eventually(t, "the listener is on its way out", l.(*listener).retired.Load)
	for _, c := range waited {
		_, _ = io.WriteString(c, get)
	}
	close(hold)
	for i, c := range waited {
		if last, err := c.answer(); err != nil || !last {
			t.Errorf("client %d: %v, last answer %v", i, err, last)
		}
		_ = c.Close()
	}
	h.answers(h.listener(another))
	h.hear(later, "other")
	if err := s.ended(patience); err != nil {
		t.Error(err)
	}
}

// The same with a Server that is full: what it has answered for is nobody else's,
// what is in its channel goes to another.
func TestFullServerDrainsWhatWasHanded(t *testing.T) {
	noLeak(t)
	h := newHanding(t)
	w, m := joined(t)
	h.grants(m)
	waited := h.dials(6)
	srv := NewServer(ServerOptions{Worker: w, MaxConnections: 1}, func(c *Socket) {
		<-c.Draining()
		_, _ = io.WriteString(c, "hello")
	})
	if err := srv.Listen(t.Context(), "tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	ended := returns(func() error { return w.Run(t.Context()) })
	h.accepted(6)
	eventually(t, "it is full", func() bool { return srv.Connections() == 1 })
	later := h.dials(1)
	h.accepted(7)
	later = append(later, h.dials(3)...)
	h.d.Admit(drained, false)
	m.send(proto.Envelope{Body: proto.Drain{DeadlineMS: 60_000, Reason: "rollout"}})
	h.hear(waited, "hello")
	h.answers(h.listener(another))
	h.hear(later, "other")
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
