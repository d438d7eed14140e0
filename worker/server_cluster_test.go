//go:build linux

package worker

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/f72e338e/supervisord/internal/proto"
)

// Rows of the reference about node:cluster, as one worker sees them. What the
// supervisor decides, such as who shares what, internal/core shows.

// A handle is the worker's own, and a name is looked up by the worker: the
// supervisor is not asked.
func TestServerListenLocal(t *testing.T) {
	noLeak(t)
	w, m := joined(t)
	local := func(network, address string) net.Listener {
		l, err := net.Listen(network, address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		return l
	}
	ctx := context.Background()
	first := newRig(t, ServerOptions{Worker: w})
	if err := first.ListenOn(ctx, local("tcp", "127.0.0.1:0")); err != nil {
		t.Fatal(err)
	}
	for what, listen := range map[string]func(*rig) error{
		"tcp":    func(r *rig) error { return r.ListenOn(ctx, local("tcp", "127.0.0.1:0")) },
		"unix":   func(r *rig) error { return r.ListenOn(ctx, local("unix", filepath.Join(t.TempDir(), "s"))) },
		"server": func(r *rig) error { defer first.Stop(); return r.ListenServer(ctx, first.Server) },
		"descriptor": func(r *rig) (err error) {
			descriptor(t, local("tcp", "127.0.0.1:0").(*net.TCPListener), func(fd uintptr) { err = r.ListenFD(ctx, fd) })
			return err
		},
	} {
		r := newRig(t, ServerOptions{Worker: w})
		if err := listen(r); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		c, err := net.Dial(r.Addr().Network(), r.Addr().String())
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		_ = c.Close()
		_ = r.next().Close()
		_ = r.Close()
	}
	var unknown *net.DNSError
	if err := first.Listen(ctx, "tcp", "no-such-host.invalid:0"); !errors.As(err, &unknown) {
		t.Errorf("a name that nobody knows: %v", err)
	}
	_ = w.Close()
	for e := range m.in {
		if body, ok := e.Body.(proto.Listen); ok {
			t.Errorf("the supervisor was asked: %+v", body)
		}
	}
}

// Close and Listen in one go: the old handle is given back before the new one is
// asked for, so the supervisor makes a new socket if nobody else has the old one.
func TestServerListenAgainInCluster(t *testing.T) {
	noLeak(t)
	w, m := joined(t)
	r := newRig(t, ServerOptions{Worker: w})
	listen := func(backlog int) <-chan error {
		return returns(func() error { return r.Listen(context.Background(), "tcp", "127.0.0.1:9", Backlog(backlog)) })
	}
	grant := func(e proto.Envelope, handle proto.HandleID) string {
		f, b := bound(t, "tcp", "127.0.0.1")
		m.send(proto.Envelope{Re: e.ID, Body: proto.Grant{Handle: handle, Network: "tcp", Address: b.Address, Backlog: b.Backlog}}, f)
		return b.Address
	}
	done := listen(7)
	e, _ := until(m, anyOf[proto.Listen])
	grant(e, 5)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	_ = r.Stop()
	done = listen(50)
	gaveBack := false
	for {
		var asked bool
		if e, _ = m.next(); e.Body.Type() == "close" {
			gaveBack = e.Body.(proto.Close).Handle == 5
		} else if l, ok := e.Body.(proto.Listen); ok {
			asked = true
			if !gaveBack || l.Backlog != 50 {
				t.Errorf("asked for %+v, gave back first: %v", l, gaveBack)
			}
		}
		if asked {
			break
		}
	}
	addr := grant(e, 6)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if r.Addr().String() != addr {
		t.Errorf("address %v, want %s", r.Addr(), addr)
	}
	r.connect()
}

// An error that comes after the Close crashes nothing, and nobody hears of it.
func TestServerCloseBeforeError(t *testing.T) {
	noLeak(t)
	w, m := joined(t)
	r := newRig(t, ServerOptions{Worker: w})
	ended := returns(func() error { return r.Listen(context.Background(), "tcp", "127.0.0.1:0") })
	e, _ := until(m, anyOf[proto.Listen])
	_ = r.Stop()
	if err := <-ended; !errors.Is(err, ErrServerClosed) {
		t.Errorf("listen: %v", err)
	}
	m.send(proto.Envelope{Re: e.ID, Body: proto.Error{Code: "EADDRINUSE", Errno: int(syscall.EADDRINUSE)}})
	m.send(proto.Envelope{ID: 9, Body: proto.Ping{}})
	until(m, anyOf[proto.Pong]) // it was read
	f, b := bound(t, "tcp", "127.0.0.1")
	m.grants(f, b)
	r.listen("127.0.0.1:0")
	r.connect()
	r.saw("close listening connection")
}

// A failed listen, tried again: one OnListening, and the words of the supervisor.
func TestServerErrorInCluster(t *testing.T) {
	noLeak(t)
	w, m := joined(t)
	r := newRig(t, ServerOptions{Worker: w})
	for range 2 {
		ended := returns(func() error { return r.Listen(context.Background(), "tcp", "127.0.0.1:9") })
		e, _ := until(m, anyOf[proto.Listen])
		m.send(proto.Envelope{Re: e.ID, Body: proto.Error{Code: "EADDRINUSE", Errno: int(syscall.EADDRINUSE), Message: "held by nginx"}})
		var refused *Error
		err := <-ended
		if !errors.Is(err, syscall.EADDRINUSE) || !errors.As(err, &refused) || refused.Op != "listen" || refused.Code != "EADDRINUSE" ||
			refused.Address != "127.0.0.1:9" || !strings.Contains(err.Error(), "cannot listen tcp 127.0.0.1:9: address already in use") {
			t.Errorf("listen: %v", err)
		}
	}
	f, b := bound(t, "tcp", "127.0.0.1")
	m.grants(f, b)
	r.listen("127.0.0.1:9")
	r.saw("error error listening")
}

// A worker that closes leaves the queue to the others who have the socket.
func TestServerStopLeavesQueued(t *testing.T) {
	hold := make(chan struct{})
	a, b := pairOfRigs(t, ServerOptions{OnListening: func() { <-hold }}, ServerOptions{MaxConnections: -1})
	c := dial(t, a.Addr().String())
	_ = a.Stop()
	close(hold)
	a.saw("listening close")
	b.SetMaxConnections(0)
	_, _ = io.WriteString(b.next(), "W")
	if b, err := c.r.ReadByte(); err != nil || b != 'W' {
		t.Errorf("the one in the queue: %q %v", b, err)
	}
}

// dispatched is a server for which a supervisor accepts, in turn.
func dispatched(t *testing.T, o ServerOptions) (*handing, *rig) {
	t.Helper()
	noLeak(t)
	h := newHanding(t)
	w, m := joined(t)
	h.grants(m)
	o.Worker = w
	return h, newRig(t, o)
}

// Nothing is read from a connection before its worker reads, so it may come with
// data, or its client be gone.
func TestServerDispatched(t *testing.T) {
	list := new(BlockList)
	h, r := dispatched(t, ServerOptions{PauseOnConnect: true, AllowHalfOpen: true, BlockList: list})
	gone, early := dial(t, h.addr), dial(t, h.addr)
	_, _ = io.WriteString(gone, "gone")
	_ = gone.Close()
	_, _ = io.WriteString(early, "early")
	_ = early.Conn.(*net.TCPConn).CloseWrite()
	r.listen("127.0.0.1:0")
	if r.Addr().String() != h.addr {
		t.Errorf("address %v, want %s", r.Addr(), h.addr)
	}
	for _, want := range []string{"gone", "early"} {
		s := r.next()
		if !s.IsPaused() || unread(t, s) != len(want) {
			t.Errorf("%s: paused %v, unread %d", want, s.IsPaused(), unread(t, s))
		}
		s.Resume()
		if b, err := io.ReadAll(s); err != nil || string(b) != want {
			t.Errorf("%s: read %q %v", want, b, err)
		}
		_, _ = io.WriteString(s, "half open")
		_ = s.Close()
	}
	if b, err := io.ReadAll(early); err != nil || string(b) != "half open" {
		t.Errorf("the client got %q %v", b, err)
	}
	_ = list.AddAddress(netip.MustParseAddr("127.0.0.1"))
	if err := atEnd(t, dial(t, h.addr)); err != io.EOF {
		t.Errorf("a peer that is blocked: %v", err)
	}
	r.saw("listening connection connection")
}

// dropMaxConnection of the reference, where it belongs: the supervisor accepts.
func TestServerDispatchedDrop(t *testing.T) {
	drops := make(chan Drop, 1)
	h, r := dispatched(t, ServerOptions{MaxConnections: 1, DropMaxConnections: true, OnDrop: func(d Drop) { drops <- d }})
	r.listen("127.0.0.1:0")
	r.connect()
	c := dial(t, h.addr)
	if err := atEnd(t, c); err != io.EOF {
		t.Error(err)
	}
	if d := <-drops; d.LocalAddr.String() != h.addr || d.RemoteAddr.String() != c.LocalAddr().String() {
		t.Errorf("drop: %+v", d)
	}
	other := newRig(t, ServerOptions{Worker: r.w})
	if err := other.ListenServer(t.Context(), r.Server); !errors.Is(err, ErrBadListen) {
		t.Errorf("there is no socket to share: %v", err)
	}
	r.saw("listening connection drop")
}

// A full worker reads no hand-over, and drops none: another gets it. With all of them
// full it waits until there is room.
func TestServerDispatchedFull(t *testing.T) {
	h, r := dispatched(t, ServerOptions{MaxConnections: 1})
	r.listen("127.0.0.1:0")
	_, s := r.connect()
	other := h.listener(another)
	h.answers(other)
	for range 4 { // its turns, too
		h.hear(h.dials(1), "other")
	}
	_ = other.Close()
	c := dial(t, h.addr)
	if r.Connections() != 1 {
		t.Errorf("%d connections", r.Connections())
	}
	_ = s.Close()
	_, _ = io.WriteString(r.next(), "W")
	if b, err := c.r.ReadByte(); err != nil || b != 'W' {
		t.Errorf("the one that waited: %q %v", b, err)
	}
	r.saw("listening connection connection")
}

// One hand-over may bring more than a server takes: the rest is passed on.
func TestServerDispatchedMany(t *testing.T) {
	h, r := dispatched(t, ServerOptions{MaxConnections: 2})
	clients := h.dials(5) // come together
	other := h.listener(another)
	h.d.Admit(another, false)
	r.listen("127.0.0.1:0")
	first, second := r.next(), r.next()
	h.d.Admit(another, true)
	h.answers(other)
	h.hear(clients[2:], "other")
	for i, s := range []*Socket{first, second} {
		_, _ = io.WriteString(s, "own")
		_ = s.Close()
		h.hear(clients[i:i+1], "own")
	}
	_ = other.Close()
	h.dials(1) // there is room again
	_ = r.next().Close()
}

// Without another worker they wait for room.
func TestServerDispatchedManyAlone(t *testing.T) {
	h, r := dispatched(t, ServerOptions{MaxConnections: 2})
	clients := h.dials(5)
	r.listen("127.0.0.1:0")
	for i := range clients {
		s := r.next()
		_, _ = io.WriteString(s, "own")
		_ = s.Close()
		h.hear(clients[i:i+1], "own")
	}
}
