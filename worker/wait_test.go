//go:build linux

package worker

import (
	"context"
	"errors"
	"io"
	"syscall"
	"testing"
	"time"

	"github.com/f72e338e/supervisord/internal/proto"
)

// returns lets f run beside the test, and gives what it returns.
func returns(f func() error) <-chan error {
	c := make(chan error, 1)
	go func() { c <- f() }()
	return c
}

// still fails the test if f has returned. The condition before it is what the
// test waited for; a moment more proves nothing.
func still(t *testing.T, what string, c <-chan error) {
	t.Helper()
	select {
	case err := <-c:
		t.Fatalf("%s returned: %v", what, err)
	default:
	}
}

func TestWaitStandAlone(t *testing.T) {
	r := newRig(t, ServerOptions{})
	if err := r.w.Wait(t.Context()); err != nil {
		t.Fatalf("nothing to wait for: %v", err)
	}
	r.listen("127.0.0.1:0")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.w.Wait(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("a server listens: %v", err)
	}
	_, s := r.connect()
	ended := returns(func() error { return r.w.Wait(t.Context()) })
	_ = r.Stop()
	if err := r.w.Wait(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("a connection is open: %v", err)
	}
	still(t, "Wait", ended)
	_ = s.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if got := r.events.String(); got != "listening connection close" {
		t.Errorf("when Wait has returned: %s", got)
	}
}

func TestServerUnref(t *testing.T) {
	for what, unref := range map[string]func(*rig){
		"before": func(r *rig) { r.Unref().Ref().Unref(); r.listen("127.0.0.1:0") },
		"after":  func(r *rig) { r.listen("127.0.0.1:0"); r.Unref() },
	} {
		r := newRig(t, ServerOptions{})
		unref(r)
		if err := r.w.Wait(t.Context()); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		_, s := r.connect() // it serves all the same, and its connections count
		ended := returns(func() error { return r.w.Wait(t.Context()) })
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := r.w.Wait(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: with a connection: %v", what, err)
		}
		_ = s.Close()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if r.Unref() != r.Server || r.Ref() != r.Server {
			t.Error("Ref and Unref do not return the server")
		}
		if err := r.w.Wait(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: after Ref: %v", what, err)
		}
		ended = returns(func() error { return r.w.Wait(t.Context()) })
		r.Unref() // wakes who waits
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// The link keeps a supervised worker, with and without servers, until it drains.
func TestWaitSupervised(t *testing.T) {
	noLeak(t)
	f, b := bound(t, "tcp", "127.0.0.1")
	w, m := joined(t)
	m.grants(f, b)
	r := newRig(t, ServerOptions{Worker: w})
	ended := returns(func() error { return w.Wait(t.Context()) })
	r.listen("127.0.0.1:0")
	r.Unref()
	_, s := r.connect() // an unreferenced server serves
	_ = s.Close()
	still(t, "Wait", ended)
	m.send(proto.Envelope{Body: proto.Drain{DeadlineMS: 60_000, Reason: "stop"}})
	if err := <-ended; err != nil {
		t.Error(err)
	}
	<-w.Draining()

	w, m = joined(t) // without a server
	ended = returns(func() error { return w.Wait(t.Context()) })
	m.send(proto.Envelope{ID: 9, Body: proto.Ping{}})
	until(m, anyOf[proto.Pong])
	still(t, "Wait", ended)
	m.send(proto.Envelope{Body: proto.Drain{DeadlineMS: 60_000, Reason: "stop"}})
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// On the worker's drain a server takes what is in its queue, tells its
// connections, and closes when the last one has ended.
func TestServerDrain(t *testing.T) {
	noLeak(t)
	f, b := bound(t, "tcp", "127.0.0.1")
	w, m := joined(t)
	m.grants(f, b)
	hold := make(chan struct{})
	r := newRig(t, ServerOptions{Worker: w, OnListening: func() { <-hold }})
	r.listen("127.0.0.1:0")
	queued := dial(t, b.Address)
	ended := returns(func() error { return w.Run(t.Context()) })
	m.send(proto.Envelope{Body: proto.Drain{DeadlineMS: 60_000, Reason: "rollout"}})
	<-w.Draining()
	close(hold)
	s := r.next()
	<-s.Draining()
	if r.IsListening() {
		t.Error("a server listens while its worker drains")
	}
	if err := r.Listen(t.Context(), "tcp", "127.0.0.1:0"); !errors.Is(err, ErrDraining) {
		t.Errorf("listen while draining: %v", err)
	}
	_, _ = io.WriteString(s, "bye")
	still(t, "Run", ended)
	_ = s.Close()
	if b, err := io.ReadAll(queued); err != nil || string(b) != "bye" {
		t.Errorf("the one from the queue got %q %v", b, err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	r.saw("listening connection error close")
}

func TestSocketDraining(t *testing.T) {
	r := newRig(t, ServerOptions{})
	r.listen("127.0.0.1:0")
	_, s := r.connect()
	select {
	case <-s.Draining():
		t.Fatal("draining from the start")
	default:
	}
	_ = r.Stop()
	<-s.Draining()
	if s.Server() != r.Server {
		t.Error("whose Socket?")
	}
}

func TestWaitDeadline(t *testing.T) {
	r := newRig(t, ServerOptions{Worker: alone(t, GracefulTimeout(time.Hour))})
	r.listen("127.0.0.1:0")
	r.connect()
	ended := returns(func() error { return r.w.Wait(t.Context()) })
	r.w.Drain("test")
	eventually(t, "not listening", func() bool { return !r.IsListening() })
	still(t, "Wait", ended)
	r.w.hurry()
	if err := <-ended; !errors.Is(err, ErrDeadline) {
		t.Errorf("Wait: %v", err)
	}
}

func TestRun(t *testing.T) {
	r := newRig(t, ServerOptions{Worker: alone(t, GracefulTimeout(time.Hour))})
	r.listen("127.0.0.1:0")
	_, s := r.connect()
	ctx, cancel := context.WithCancel(t.Context())
	ended := returns(func() error { return r.w.Run(ctx) })
	cancel()
	<-s.Draining()
	if got := r.w.DrainReason(); got != context.Canceled.Error() {
		t.Errorf("reason: %q", got)
	}
	_ = s.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// Every signal is awaited by what it does, so that none is left for another test.
func TestRunBySignal(t *testing.T) {
	noLeak(t)
	f, b := bound(t, "tcp", "127.0.0.1")
	w, m := joined(t, GracefulTimeout(time.Hour))
	r := newRig(t, ServerOptions{Worker: w})
	listened := returns(func() error { return r.Listen(context.Background(), "tcp", "127.0.0.1:0") })
	e, _ := until(m, anyOf[proto.Listen])
	m.send(proto.Envelope{Re: e.ID, Body: proto.Grant{Handle: 3, Network: "tcp", Address: b.Address}}, f)
	if err := <-listened; err != nil {
		t.Fatal(err)
	}
	_ = dial(t, b.Address)
	s := r.next()
	ended := returns(func() error { return w.Run(t.Context()) })
	until(m, anyOf[proto.Ready]) // Run listens for signals by now
	if err := syscall.Kill(syscall.Getpid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-s.Draining()
	still(t, "Run", ended)
	if err := syscall.Kill(syscall.Getpid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, ErrDeadline) {
		t.Errorf("Run: %v", err)
	}
}

func TestServerConnections(t *testing.T) {
	r := newRig(t, ServerOptions{})
	if n, err := r.ClusterConnections(t.Context()); err != nil || n.Total != 0 {
		t.Errorf("before: %+v %v", n, err)
	}
	r.listen("127.0.0.1:0")
	_, a := r.connect()
	_, b := r.connect()
	_ = r.Stop()
	for open, s := range []*Socket{nil, a, b} {
		if s != nil {
			_ = s.Close()
		}
		if r.Connections() != 2-open {
			t.Errorf("%d connections, want %d", r.Connections(), 2-open)
		}
		if n, err := r.ClusterConnections(t.Context()); err != nil || n.Total != int64(2-open) {
			t.Errorf("cluster: %+v %v", n, err)
		}
	}
	none := NewServer(ServerOptions{}, nil)
	if _, err := none.ClusterConnections(t.Context()); !errors.Is(err, ErrServerNotRunning) || none.Connections() != 0 {
		t.Errorf("of a server that has no worker: %v", err)
	}
}

// The whole pool is asked, and who does not answer is named.
func TestServerClusterConnections(t *testing.T) {
	noLeak(t)
	w, m := joined(t)
	r := newRig(t, ServerOptions{Worker: w})
	ended := make(chan Conns, 1)
	go func() {
		n, err := r.ClusterConnections(t.Context())
		if err != nil {
			t.Error(err)
		}
		ended <- n
	}()
	e, _ := until(m, anyOf[proto.Connections])
	m.send(proto.Envelope{Re: e.ID, Body: proto.Conns{Total: 5, Workers: []proto.WorkerConns{{Worker: 7, Slot: 1, Connections: 5}}, Missing: []proto.WorkerID{8}}})
	if n := <-ended; n.Total != 5 || len(n.Workers) != 1 || len(n.Missing) != 1 || n.Missing[0] != 8 {
		t.Errorf("%+v", n)
	}
}
