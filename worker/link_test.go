//go:build linux

package worker

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/internal/proto"
)

func TestIdentity(t *testing.T) {
	w, m := supervised(t, Client("test"))
	e, h := expect[proto.Hello](m)
	if e.ID == 0 || h.Client != "test" || h.State != proto.StateStarting || h.Epoch != 0 || !slices.Equal(h.Versions, []int{1}) {
		t.Fatalf("hello: %+v", e)
	}
	m.send(proto.Envelope{Re: e.ID, Body: welcome(1)})
	if _, err := w.await(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !w.Supervised() || w.Pool() != "web" || w.Slot() != 1 || w.ID() != 7 || w.Generation() != 3 {
		t.Fatalf("identity: %q %d %d %d", w.Pool(), w.Slot(), w.ID(), w.Generation())
	}
	if got := w.Listeners(); len(got) != 1 || got[0] != (Endpoint{"main", "tcp", "127.0.0.1:0"}) {
		t.Fatalf("listeners: %+v", got)
	}
}

func TestJoinRefused(t *testing.T) {
	w, m := supervised(t)
	e, _ := expect[proto.Hello](m)
	m.send(proto.Envelope{Re: e.ID, Body: proto.Error{Code: proto.CodeVersion, Message: "no version in common"}})
	var refused *Error
	if _, err := w.await(t.Context()); !errors.As(err, &refused) || refused.Code != proto.CodeVersion {
		t.Fatalf("await: %v", err)
	}
}

func TestJoinWithoutAnswer(t *testing.T) {
	w, _ := silent(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.await(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("await: %v", err)
	}
}

func TestListenKeepsBlockingMode(t *testing.T) {
	w, m := joined(t)
	f, b := bound(t, "tcp", "127.0.0.1")
	before := statusFlags(t, f.Fd())
	l := m.granted(w, f, b, 11)
	if got := statusFlags(t, f.Fd()); got != before || got&unix.O_NONBLOCK == 0 {
		t.Fatalf("status flags: %#x, were %#x", got, before)
	}
	c, err := net.Dial("tcp", b.Address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := s.(syscall.Conn); !ok {
		t.Fatalf("%T has no SyscallConn", s)
	}
	until(m, func(c proto.Counts) bool { return c == proto.Counts{Connections: 1, Accepted: 1} })
	s.Close()
	s.Close()
	until(m, func(c proto.Counts) bool { return c == proto.Counts{Connections: 0, Accepted: 1} })
	l.Close()
	l.Close()
	if _, c := expect[proto.Close](m); c.Handle != 11 {
		t.Fatalf("close: %+v", c)
	}
	if got := statusFlags(t, f.Fd()); got != before {
		t.Fatalf("status flags after close: %#x, were %#x", got, before)
	}
	m.send(proto.Envelope{ID: 5, Body: proto.Ping{}})
	expect[proto.Pong](m) // and not a second close
}

func statusFlags(t *testing.T, fd int) int {
	t.Helper()
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		t.Fatal(err)
	}
	return flags
}

func TestListenError(t *testing.T) {
	w, m := joined(t)
	errs := make(chan error, 1)
	go func() {
		_, err := w.Listen(t.Context(), "tcp", ":8080", Exclusive(), Backlog(7))
		errs <- err
	}()
	e, l := expect[proto.Listen](m)
	if l != (proto.Listen{Network: "tcp", Port: 8080, Backlog: 7, Exclusive: true}) {
		t.Fatalf("listen: %+v", l)
	}
	m.send(proto.Envelope{Re: e.ID, Body: proto.Error{Code: "EADDRINUSE", Errno: int(syscall.EADDRINUSE), Message: "cannot bind tcp *:8080: in use"}})
	err := <-errs
	var refused *Error
	if !errors.Is(err, syscall.EADDRINUSE) || !errors.As(err, &refused) || refused.Address != "*:8080" || err.Error() != "cannot bind tcp *:8080: in use" {
		t.Fatalf("listen: %#v", err)
	}
}

func TestListenAbandoned(t *testing.T) {
	w, m := joined(t)
	f, b := bound(t, "tcp", "127.0.0.1")
	ctx, cancel := context.WithCancel(t.Context())
	errs := make(chan error, 1)
	go func() {
		_, err := w.Listen(ctx, "tcp", "127.0.0.1:0")
		errs <- err
	}()
	e, _ := expect[proto.Listen](m)
	cancel()
	if err := <-errs; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	m.send(proto.Envelope{Re: e.ID, Body: proto.Grant{Handle: 4, Network: "tcp", Address: b.Address}}, f)
	if _, c := expect[proto.Close](m); c.Handle != 4 {
		t.Fatalf("close: %+v", c)
	}
}

func TestQuestions(t *testing.T) {
	w, m := joined(t)
	m.send(proto.Envelope{Body: unknown{}})
	m.send(proto.Envelope{ID: 9, Body: unknown{}})
	if e, refusal := expect[proto.Error](m); e.Re != 9 || refusal.Code != proto.CodeUnknownMessage {
		t.Fatalf("unknown message: %+v", e)
	}
	m.send(proto.Envelope{ID: 10, Body: proto.Listen{}}) // known, but not to a worker
	if e, refusal := expect[proto.Error](m); e.Re != 10 || refusal.Code != proto.CodeUnknownMessage {
		t.Fatalf("message of the other direction: %+v", e)
	}
	m.send(proto.Envelope{ID: 11, Body: proto.Ping{}})
	if e, _ := expect[proto.Pong](m); e.Re != 11 {
		t.Fatalf("pong: %+v", e)
	}
	m.send(proto.Envelope{ID: 12, Body: proto.Count{}})
	if e, _ := expect[proto.Counts](m); e.Re != 12 {
		t.Fatalf("counts: %+v", e)
	}
	conns := make(chan Conns, 1)
	go func() {
		c, err := w.Connections(t.Context())
		if err != nil {
			t.Error(err)
		}
		conns <- c
	}()
	e, _ := expect[proto.Connections](m)
	m.send(proto.Envelope{Re: e.ID, Body: proto.Conns{Total: 5, Workers: []proto.WorkerConns{{Worker: 7, Slot: 1, Connections: 5}}, Missing: []proto.WorkerID{8}}})
	if c := <-conns; c.Total != 5 || len(c.Workers) != 1 || !slices.Equal(c.Missing, []uint64{8}) {
		t.Fatalf("connections: %+v", c)
	}
}

// unknown is a message of a version to come.
type unknown struct{}

func (unknown) Type() string { return "from_the_future" }

func TestDrainOrder(t *testing.T) {
	w, m := joined(t)
	if err := w.Ready(); err != nil {
		t.Fatal(err)
	}
	expect[proto.Ready](m)
	m.send(proto.Envelope{Body: proto.Drain{DeadlineMS: 60_000, Reason: "rollout"}})
	<-w.Draining()
	if _, d := expect[proto.Draining](m); d.Reason != "rollout" || w.DrainReason() != "rollout" {
		t.Fatalf("draining: %+v", d)
	}
	if left := time.Until(w.DrainDeadline()); left < 50*time.Second || left > time.Minute {
		t.Fatalf("deadline in %v", left)
	}
	if err := w.Ready(); !errors.Is(err, ErrDraining) {
		t.Fatalf("ready while draining: %v", err)
	}
	w.Drain("again")
	m.send(proto.Envelope{Body: proto.Drain{DeadlineMS: 1, Reason: "hurry"}})
	eventually(t, "the deadline moved", func() bool { return time.Until(w.DrainDeadline()) < time.Second })
}

func TestEndOfLink(t *testing.T) {
	w, m := joined(t)
	errs := make(chan error, 1)
	go func() {
		_, err := w.ListenName(t.Context(), "main")
		errs <- err
	}()
	if _, l := expect[proto.Listen](m); l.Name != "main" {
		t.Fatalf("listen: %+v", l)
	}
	m.conn.Close()
	<-w.Draining()
	if err := <-errs; !errors.Is(err, ErrLost) {
		t.Fatalf("listen: %v", err)
	}
	if err := w.Status("x"); !errors.Is(err, ErrLost) {
		t.Fatalf("status: %v", err)
	}
	if !strings.Contains(w.DrainReason(), "gone") {
		t.Fatalf("reason: %q", w.DrainReason())
	}
}

func TestCloseSaysWhatIsLeft(t *testing.T) {
	w, m := joined(t)
	_ = w.Status("last words")
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, s := expect[proto.Status](m); s.Text != "last words" {
		t.Fatalf("status: %+v", s)
	}
	if e, open := m.next(); open {
		t.Fatalf("after close: %+v", e)
	}
	if err := w.Ready(); !errors.Is(err, ErrClosed) {
		t.Fatalf("ready: %v", err)
	}
}

// A supervisor that does not read must not stop a program that serves.
func TestSilentMaster(t *testing.T) {
	w, m := silent(t)
	m.send(proto.Envelope{Body: welcome(1)})
	if _, err := w.await(t.Context()); err != nil {
		t.Fatal(err)
	}
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l, err := newListener(w, inner, func() {})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for i := range 2000 {
		m.send(proto.Envelope{ID: uint64(i + 1), Body: proto.Ping{}})
		_ = w.Status(strings.Repeat("x", maxStatus))
		if i%20 == 0 {
			c, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			s, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			s.Close()
			c.Close()
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.queue) > maxReplies+2 {
		t.Fatalf("%d messages wait", len(w.queue))
	}
}
