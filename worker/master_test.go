//go:build linux

package worker

import (
	"net"
	"testing"
	"time"

	"github.com/f72e338e/supervisord/fdpass"
	"github.com/f72e338e/supervisord/internal/link"
	"github.com/f72e338e/supervisord/internal/proto"
	"github.com/f72e338e/supervisord/internal/socket"
)

// patience is how long a test waits for something that must happen.
const patience = 10 * time.Second

// master is the other end of a worker's link, played by the test.
type master struct {
	t     *testing.T
	conn  *link.Conn
	in    chan proto.Envelope // closed at the end of the link
	files chan *fdpass.File   // that came along; closed with the test
}

// supervised returns a worker with a master that reads and has not said welcome.
func supervised(t *testing.T, opts ...JoinOption) (*Worker, *master) {
	t.Helper()
	w, m := silent(t, opts...)
	m.in = make(chan proto.Envelope, 4096)
	go func() {
		defer close(m.in)
		for {
			e, files, err := m.conn.Recv()
			for _, f := range files {
				m.files <- f
				t.Cleanup(func() { _ = f.Close() })
			}
			if err != nil && !link.IsProtocol(err) {
				return
			}
			m.in <- e
		}
	}()
	return w, m
}

// silent returns a worker with a master that reads nothing.
func silent(t *testing.T, opts ...JoinOption) (*Worker, *master) {
	t.Helper()
	a, b, err := fdpass.Pair()
	if err != nil {
		t.Fatal(err)
	}
	m := &master{t: t, conn: link.New(a, 1), files: make(chan *fdpass.File, 64)}
	w := newWorker(link.New(b, fdpass.MaxFiles), opts)
	t.Cleanup(func() { _ = m.conn.Close(); _ = w.Close() })
	return w, m
}

// joined returns a worker that was welcomed to slot 1 of pool web in epoch 1.
func joined(t *testing.T, opts ...JoinOption) (*Worker, *master) {
	t.Helper()
	w, m := supervised(t, opts...)
	e, _ := expect[proto.Hello](m)
	m.send(proto.Envelope{Re: e.ID, Body: welcome(1)})
	if _, err := w.await(t.Context()); err != nil {
		t.Fatal(err)
	}
	return w, m
}

func welcome(epoch uint64) proto.Welcome {
	return proto.Welcome{Version: 1, Epoch: epoch, Pool: "web", Slot: 1, Worker: 7, Generation: 3,
		Listeners: []proto.Endpoint{{Name: "main", Network: "tcp", Address: "127.0.0.1:0"}}}
}

func (m *master) send(e proto.Envelope, files ...*fdpass.File) {
	m.t.Helper()
	if err := m.conn.Send(e, files...); err != nil {
		m.t.Fatalf("master: send %s: %v", e.Body.Type(), err)
	}
}

// next returns the worker's next message; ok is false at the end of the link.
func (m *master) next() (e proto.Envelope, ok bool) {
	m.t.Helper()
	select {
	case e, ok = <-m.in:
		return e, ok
	case <-time.After(patience):
		m.t.Fatal("master: the worker says nothing")
		panic("unreachable")
	}
}

// expect returns the worker's next message, which must be an M.
func expect[M proto.Message](m *master) (proto.Envelope, M) {
	m.t.Helper()
	var want M
	e, ok := m.next()
	if !ok {
		m.t.Fatalf("master: end of the link, want %s", want.Type())
	}
	body, ok := e.Body.(M)
	if !ok {
		m.t.Fatalf("master: got %#v, want %s", e, want.Type())
	}
	return e, body
}

// until skips messages up to the first M for which ok holds.
func until[M proto.Message](m *master, ok func(M) bool) (proto.Envelope, M) {
	m.t.Helper()
	for {
		e, open := m.next()
		if !open {
			m.t.Fatal("master: end of the link")
		}
		if body, is := e.Body.(M); is && ok(body) {
			return e, body
		}
	}
}

func anyOf[M proto.Message](M) bool { return true }

// bound makes a socket as the master does.
func bound(t *testing.T, network, address string) (*fdpass.File, proto.Bound) {
	t.Helper()
	f, b, err := socket.Bind(proto.SocketSpec{Network: network, Address: address})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f, b
}

// granted lets the worker listen on f, and returns the listener.
func (m *master) granted(w *Worker, f *fdpass.File, b proto.Bound, handle proto.HandleID) net.Listener {
	m.t.Helper()
	type result struct {
		l   net.Listener
		err error
	}
	c := make(chan result, 1)
	go func() {
		l, err := w.Listen(m.t.Context(), "tcp", "127.0.0.1:0")
		c <- result{l, err}
	}()
	e, _ := until(m, anyOf[proto.Listen])
	m.send(proto.Envelope{Re: e.ID, Body: proto.Grant{Handle: handle, Network: "tcp", Address: b.Address, Backlog: b.Backlog}}, f)
	r := <-c
	if r.err != nil {
		m.t.Fatal(r.err)
	}
	m.t.Cleanup(func() { _ = r.l.Close() })
	return r.l
}

// alone returns a stand-alone worker that does not outlive the test.
func alone(t testing.TB, opts ...JoinOption) *Worker {
	t.Helper()
	return newWorker(nil, opts)
}

// eventually waits until ok holds.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("never came true: %s", what)
		}
	}
}
