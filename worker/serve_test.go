//go:build linux

package worker

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"syscall"
	"testing"
	"time"
)

// server is a Serve under way.
type server struct {
	t    *testing.T
	w    *Worker
	addr string
	stop context.CancelFunc
	end  chan error
}

func hello(rw http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(rw, "hello") }

// serve runs h on a worker of its own, stand-alone.
func serve(t *testing.T, h http.HandlerFunc, opts ...JoinOption) *server {
	t.Helper()
	w := alone(t, opts...)
	l, err := w.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return serveOn(t, w, &http.Server{Handler: h}, l)
}

func serveOn(t *testing.T, w *Worker, srv *http.Server, l net.Listener) *server {
	ctx, stop := context.WithCancel(context.Background())
	s := &server{t: t, w: w, addr: l.Addr().String(), stop: stop, end: make(chan error, 1)}
	go func() { s.end <- w.Serve(ctx, srv, l) }()
	t.Cleanup(stop)
	return s
}

// ended waits for Serve to return within limit of now.
func (s *server) ended(limit time.Duration) error {
	s.t.Helper()
	select {
	case err := <-s.end:
		return err
	case <-time.After(limit):
		s.t.Fatal("Serve did not return")
		return nil
	}
}

// client is one connection that speaks HTTP/1.1.
type client struct {
	net.Conn
	r *bufio.Reader
}

func dial(t *testing.T, addr string) *client {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return &client{c, bufio.NewReader(c)}
}

const get = "GET / HTTP/1.1\r\nHost: test\r\n\r\n"

// answer reads one answer and reports whether it is the connection's last.
func (c *client) answer() (last bool, err error) {
	r, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return false, err
	}
	defer r.Body.Close()
	_, err = io.Copy(io.Discard, r.Body)
	return r.Close, err
}

func (c *client) ask(t *testing.T) (last bool) {
	t.Helper()
	if _, err := io.WriteString(c, get); err != nil {
		t.Fatal(err)
	}
	last, err := c.answer()
	if err != nil {
		t.Fatal(err)
	}
	return last
}

func TestDrainIdleConnection(t *testing.T) {
	s := serve(t, hello, IdleGrace(time.Hour), GracefulTimeout(time.Hour))
	c := dial(t, s.addr)
	if c.ask(t) {
		t.Fatal("the first answer was the last")
	}
	s.w.Drain("test")
	eventually(t, "listener closed", func() bool {
		d, err := net.Dial("tcp", s.addr)
		if err == nil {
			_ = d.Close()
		}
		return err != nil
	})
	if !c.ask(t) {
		t.Fatal("an answer while draining was not the last")
	}
	_ = c.Close()
	if err := s.ended(patience); err != nil { // and not after the grace
		t.Fatal(err)
	}
}

func TestDrainByContext(t *testing.T) {
	s := serve(t, hello)
	s.stop()
	if err := s.ended(patience); err != nil {
		t.Fatal(err)
	}
	select {
	case <-s.w.Draining():
		t.Fatal("the whole worker drains")
	default:
	}
}

func TestDrainBySignal(t *testing.T) {
	s := serve(t, hello, IdleGrace(time.Hour), GracefulTimeout(time.Hour))
	c := dial(t, s.addr)
	c.ask(t)
	if err := syscall.Kill(syscall.Getpid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-s.w.Draining()
	eventually(t, "answers are the last ones", func() bool { return len(s.end) == 0 && s.w.DrainReason() != "" })
	if err := syscall.Kill(syscall.Getpid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := s.ended(patience); !errors.Is(err, ErrDeadline) {
		t.Fatalf("after a second signal: %v", err)
	}
}

func TestDrainIdleGrace(t *testing.T) {
	s := serve(t, hello, IdleGrace(50*time.Millisecond))
	c := dial(t, s.addr)
	c.ask(t)
	s.w.Drain("test")
	if _, err := c.r.ReadByte(); err != io.EOF {
		t.Fatalf("idle connection after the grace: %v", err)
	}
	_ = c.Close()
	if err := s.ended(patience); err != nil {
		t.Fatal(err)
	}
}

// A request that is being answered is finished, though the grace is long over.
func TestDrainFinishesRequest(t *testing.T) {
	arrived, finish := make(chan struct{}), make(chan struct{})
	s := serve(t, func(rw http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-finish
		hello(rw, r)
	}, IdleGrace(0))
	c := dial(t, s.addr)
	_, _ = io.WriteString(c, get)
	<-arrived
	s.w.Drain("test")
	idle := dial2(s.addr)
	eventually(t, "listener closed", func() bool { return idle() != nil })
	close(finish)
	if _, err := c.answer(); err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	if err := s.ended(patience); err != nil {
		t.Fatal(err)
	}
}

func dial2(addr string) func() error {
	return func() error {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			_ = c.Close()
		}
		return err
	}
}

func TestDrainDeadline(t *testing.T) {
	s := serve(t, hello, IdleGrace(time.Hour), GracefulTimeout(50*time.Millisecond))
	dial(t, s.addr).ask(t)
	s.w.Drain("test")
	if err := s.ended(patience); !errors.Is(err, ErrDeadline) {
		t.Fatal(err)
	}
}

func TestDrainWaitsForHijacked(t *testing.T) {
	hijacked := make(chan net.Conn, 1)
	s := serve(t, func(rw http.ResponseWriter, r *http.Request) {
		c, _, err := rw.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
		}
		hijacked <- c
	}, IdleGrace(0))
	c := dial(t, s.addr)
	_, _ = io.WriteString(c, get)
	mine := <-hijacked
	s.w.Drain("test")
	eventually(t, "listener closed", func() bool { return dial2(s.addr)() != nil })
	_, _ = io.WriteString(mine, "x")
	if b, err := c.r.ReadByte(); err != nil || b != 'x' {
		t.Fatalf("hijacked connection while draining: %q %v", b, err)
	}
	if len(s.end) > 0 {
		t.Fatal("Serve returned while a hijacked connection was open")
	}
	_ = mine.Close()
	if err := s.ended(patience); err != nil {
		t.Fatal(err)
	}
}

// A client that sent one request more than it had answers must still get the
// answer before, and an orderly end.
func TestDrainPipelined(t *testing.T) {
	release := make(chan struct{})
	s := serve(t, func(rw http.ResponseWriter, r *http.Request) { <-release; hello(rw, r) })
	s.w.Drain("test") // before Serve may have begun: it must drain all the same
	if err := s.ended(patience); err != nil {
		t.Fatal(err)
	}

	s = serve(t, func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/2" {
			s.w.Drain("test")
		}
		hello(rw, r)
	})
	c := dial(t, s.addr)
	c.ask(t)
	_, _ = io.WriteString(c, "GET /2 HTTP/1.1\r\nHost: test\r\n\r\n")
	if _, err := c.answer(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "listener closed", func() bool { return dial2(s.addr)() != nil })
	_, _ = io.WriteString(c, get+get+get)
	if last, err := c.answer(); err != nil || !last {
		t.Fatalf("answer: last %v, %v", last, err)
	}
	if _, err := io.WriteString(c, get); err != nil {
		t.Fatalf("write after the last answer: %v", err)
	}
	if _, err := c.r.ReadByte(); err != io.EOF {
		t.Fatalf("after the last answer: %v", err)
	}
	_ = c.Close()
	if err := s.ended(patience); err != nil {
		t.Fatal(err)
	}
}
