//go:build linux

package worker

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"

	"github.com/f72e338e/supervisord/internal/proto"
)

func TestServerEventOrder(t *testing.T) {
	var r *rig
	r = newRig(t, ServerOptions{OnListening: func() {
		if !r.IsListening() || r.Addr() == nil {
			t.Error("OnListening before the server listens")
		}
	}, OnConnection: func(*Socket) {
		if r.Connections() != 1 {
			t.Error("OnConnection before the connection counts")
		}
	}})
	if r.IsListening() || r.Addr() != nil {
		t.Error("a new server listens")
	}
	r.listen("127.0.0.1:0")
	c, s := r.connect()
	if err := r.Stop(); err != nil {
		t.Fatal(err)
	}
	if r.IsListening() || r.Addr() != nil {
		t.Error("a server that was stopped listens")
	}
	if got := r.events.String(); got != "listening connection" {
		t.Errorf("while a connection is open: %s", got)
	}
	go func() { _, _ = io.Copy(io.Discard, s) }()
	_ = c.Close()
	r.saw("listening connection close")
}

// The classic: somebody has the port; the application tries again, from the
// very callback, until it is free.
func TestServerErrorThenListenAgain(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	again := make(chan error, 1)
	var r *rig
	r = newRig(t, ServerOptions{OnError: func(err error) {
		if !errors.Is(err, syscall.EADDRINUSE) || r.IsListening() {
			t.Errorf("OnError: %v, listening %v", err, r.IsListening())
		}
		_ = taken.Close()
		again <- r.Listen(context.Background(), "tcp", taken.Addr().String())
	}})
	if err := r.Listen(t.Context(), "tcp", taken.Addr().String()); !errors.Is(err, syscall.EADDRINUSE) {
		t.Fatalf("listen on a port that is taken: %v", err)
	}
	if err := <-again; err != nil {
		t.Fatal(err)
	}
	r.connect()
	r.saw("error listening connection")
}

func TestServerAlreadyListening(t *testing.T) {
	r := newRig(t, ServerOptions{})
	r.listen("127.0.0.1:0")
	if err := r.Listen(t.Context(), "tcp", "127.0.0.1:0"); !errors.Is(err, ErrAlreadyListening) {
		t.Errorf("second listen: %v", err)
	}
	r.connect()
	r.saw("listening connection") // and no error event: the reference throws
}

func TestServerCloseWaits(t *testing.T) {
	r := newRig(t, ServerOptions{})
	r.listen("127.0.0.1:0")
	addr := r.Addr().String()
	_, s := r.connect()
	ended := make(chan error, 1)
	go func() { ended <- r.Close() }()
	r.refuses(addr)
	if _, err := s.Write([]byte("still here")); err != nil || r.Connections() != 1 {
		t.Errorf("connection after Close: %v, %d open", err, r.Connections())
	}
	if err := r.Close(); !errors.Is(err, ErrServerNotRunning) {
		t.Errorf("second Close: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Shutdown(ctx); !errors.Is(err, ErrServerNotRunning) {
		t.Errorf("Shutdown of a closing server: %v", err)
	}
	select {
	case err := <-ended:
		t.Fatalf("Close returned with a connection open: %v", err)
	default:
	}
	_ = s.Close()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if got := r.events.String(); got != "listening connection close" {
		t.Errorf("when Close has returned: %s", got)
	}
}

func TestServerShutdownGivesUp(t *testing.T) {
	r := newRig(t, ServerOptions{})
	r.listen("127.0.0.1:0")
	_, s := r.connect()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Shutdown: %v", err)
	}
	if _, err := s.Write([]byte("x")); err != nil {
		t.Errorf("connection after Shutdown gave up: %v", err)
	}
	_ = s.Close()
	r.saw("listening connection close")
}

// Never listened: an error, and a close event all the same.
func TestServerCloseNotRunning(t *testing.T) {
	r := newRig(t, ServerOptions{})
	if err := r.Close(); !errors.Is(err, ErrServerNotRunning) {
		t.Errorf("Close of a server that never listened: %v", err)
	}
	r.saw("close")
	r.listen("127.0.0.1:0")
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if err := r.Close(); !errors.Is(err, ErrServerNotRunning) {
		t.Errorf("second Close: %v", err)
	}
	r.saw("close listening close close")
}

func TestServerListenAfterClose(t *testing.T) {
	r := newRig(t, ServerOptions{})
	r.listen("127.0.0.1:0")
	addr := r.Addr().String()
	want := []string{}
	for range 20 { // the address is free at once, also for us
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		r.listen(addr)
		want = append(want, "listening", "close")
	}
	r.saw(strings.Join(append(want, "listening"), " "))
	for range 20 {
		_ = r.Stop()
		r.listen(addr)
	}
}

// Listening again while connections of the last time are open: they count, and
// each time has its close.
func TestServerListenWhileClosing(t *testing.T) {
	r := newRig(t, ServerOptions{})
	r.listen("127.0.0.1:0")
	addr := r.Addr().String()
	_, s := r.connect()
	ended := make(chan error, 1)
	go func() { ended <- r.Close() }()
	eventually(t, "not listening", func() bool { return !r.IsListening() })
	r.listen(addr)
	r.connect()
	if r.Connections() != 2 {
		t.Errorf("%d connections", r.Connections())
	}
	_ = s.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	r.saw("listening connection listening connection close")
	if !r.IsListening() || r.Connections() != 1 {
		t.Errorf("listening %v with %d connections", r.IsListening(), r.Connections())
	}
}

func TestServerContext(t *testing.T) {
	r := newRig(t, ServerOptions{})
	ctx, cancel := context.WithCancel(t.Context())
	if err := r.Listen(ctx, "tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	addr := r.Addr().String()
	_, s := r.connect()
	cancel()
	r.refuses(addr)
	if _, err := s.Write([]byte("x")); err != nil || r.IsListening() {
		t.Errorf("after the context's end: %v, listening %v", err, r.IsListening())
	}
	_ = s.Close()
	r.saw("listening connection close")
	if err := r.Listen(ctx, "tcp", addr); !errors.Is(err, context.Canceled) {
		t.Errorf("listen with a context that has ended: %v", err)
	}
	r.saw("listening connection close close")
	r.listen(addr)
	r.connect()
}

// The end of an old context does not touch a listening that came after it.
func TestServerOldContext(t *testing.T) {
	r := newRig(t, ServerOptions{})
	ctx, cancel := context.WithCancel(t.Context())
	if err := r.Listen(ctx, "tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	_ = r.Stop()
	r.listen("127.0.0.1:0")
	cancel()
	r.connect()
}

// Close while the supervisor has not answered: never listening, and what is
// granted late is given back.
func TestServerCloseWhileAsking(t *testing.T) {
	for what, stop := range map[string]func(*rig, context.CancelFunc) error{
		"close":   func(r *rig, _ context.CancelFunc) error { return r.Close() },
		"context": func(_ *rig, cancel context.CancelFunc) error { cancel(); return ErrServerNotRunning },
	} {
		t.Run(what, func(t *testing.T) { closeWhileAsking(t, stop) })
	}
}

func closeWhileAsking(t *testing.T, stop func(*rig, context.CancelFunc) error) {
	noLeak(t)
	w, m := joined(t)
	r := newRig(t, ServerOptions{Worker: w})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- r.Listen(ctx, "tcp", "127.0.0.1:0") }()
	e, _ := until(m, anyOf[proto.Listen])
	if r.IsListening() || r.Addr() != nil {
		t.Error("listening before the answer")
	}
	if err := r.Listen(ctx, "tcp", "127.0.0.1:0"); !errors.Is(err, ErrAlreadyListening) {
		t.Errorf("a Listen beside another: %v", err)
	}
	if err := stop(r, cancel); !errors.Is(err, ErrServerNotRunning) {
		t.Errorf("close: %v", err)
	}
	if err := <-ended; !errors.Is(err, ErrServerClosed) && !errors.Is(err, context.Canceled) {
		t.Errorf("listen: %v", err)
	}
	r.saw("close")
	f, b := bound(t, "tcp", "127.0.0.1")
	m.send(proto.Envelope{Re: e.ID, Body: proto.Grant{Handle: 5, Network: "tcp", Address: b.Address}}, f)
	if _, c := until(m, anyOf[proto.Close]); c.Handle != 5 {
		t.Errorf("close of handle %d", c.Handle)
	}
}
