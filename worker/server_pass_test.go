//go:build linux

package worker

import (
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/f72e338e/supervisord/fdpass"
	"github.com/f72e338e/supervisord/internal/proto"
	"github.com/f72e338e/supervisord/internal/socket"
)

// passing is a server on handle 3 of a master that the test plays.
type passing struct {
	*rig
	m       *master
	network string
	address string
}

func newPassing(t *testing.T, network string, o ServerOptions) *passing {
	t.Helper()
	noLeak(t)
	address := "127.0.0.1"
	if network != "tcp" {
		address = filepath.Join(t.TempDir(), "s")
	}
	f, b, err := socket.Bind(proto.SocketSpec{Network: network, Address: address})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	w, m := joined(t)
	o.Worker = w
	p := &passing{rig: newRig(t, o), m: m, network: network, address: b.Address}
	done := returns(func() error { return p.Listen(context.Background(), network, b.Address) })
	e, _ := until(m, anyOf[proto.Listen])
	m.send(proto.Envelope{Re: e.ID, Body: proto.Grant{Handle: 3, Network: network, Address: b.Address, Backlog: b.Backlog}}, f)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return p
}

// dial connects a client that says a line at once.
func (p *passing) dial() net.Conn {
	p.t.Helper()
	c, err := net.Dial(p.network, p.address)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = c.Close() })
	_, _ = io.WriteString(c, "line")
	_ = c.SetDeadline(time.Now().Add(patience))
	return c
}

// asked waits for a request to pass a connection on, and returns that.
func (p *passing) asked() (id uint64, c net.Conn) {
	p.t.Helper()
	e, pass := until(p.m, anyOf[proto.Pass])
	if pass.Handle != 3 || e.ID == 0 {
		p.t.Errorf("%+v", e)
	}
	return e.ID, connOf(p.t, <-p.m.files)
}

func connOf(t *testing.T, f *fdpass.File) net.Conn {
	t.Helper()
	h := newHandedConn(f, &channel{page: &memberPage{new([2]uint64)}})
	t.Cleanup(func() { _ = h.socketFile.Close() })
	return h.socketFile
}

// hears checks that a connection has the line, and answers it to the client.
func hears(t *testing.T, c, client net.Conn) {
	t.Helper()
	b := make([]byte, 4)
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "line" {
		t.Errorf("heard %q, %v", b, err)
	}
	_, _ = io.WriteString(c, "pong")
	if _, err := io.ReadFull(client, b); err != nil || string(b) != "pong" {
		t.Errorf("the client heard %q, %v", b, err)
	}
}

func (p *passing) passOn(ctx context.Context, c *Socket) <-chan error {
	return returns(func() error { return c.PassOn(ctx) })
}

func TestServerPassOn(t *testing.T) {
	for _, network := range []string{"tcp", "unix", "unixpacket"} {
		t.Run(network, func(t *testing.T) {
			p := newPassing(t, network, ServerOptions{PauseOnConnect: true})
			client := p.dial()
			c := p.next()
			read := returns(func() error { _, err := c.Read(make([]byte, 1)); return err })
			_ = c.SetDeadline(time.Now().Add(time.Hour))
			done := p.passOn(t.Context(), c)
			id, other := p.asked()
			p.m.send(proto.Envelope{Re: id, Body: proto.Passed{}})
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			if err := <-read; !errors.Is(err, net.ErrClosed) {
				t.Errorf("a Read that waited: %v", err)
			}
			if err := c.PassOn(t.Context()); !errors.Is(err, net.ErrClosed) {
				t.Errorf("passed on twice: %v", err)
			}
			if n := p.Connections() + int(p.w.open.Load()); n != 0 {
				t.Errorf("%d connections", n)
			}
			hears(t, other, client)
		})
	}
}

func TestServerPassOnRefused(t *testing.T) {
	t.Run("touched", func(t *testing.T) {
		p := newPassing(t, "tcp", ServerOptions{})
		for _, touch := range []func(*Socket){
			func(c *Socket) { _, _ = c.Read(make([]byte, 1)) },
			func(c *Socket) { _, _ = c.Write([]byte("x")) },
			func(c *Socket) { _, _ = c.WriteTo(io.Discard) },
			func(c *Socket) { c.NetConn() },
			func(c *Socket) { _, _ = c.SyscallConn() },
			func(c *Socket) { _ = c.CloseWrite() },
			(*Socket).Resume,
		} {
			_ = p.dial().(*net.TCPConn).CloseWrite()
			c := p.next()
			touch(c)
			if err := c.PassOn(t.Context()); !errors.Is(err, ErrTouched) && !errors.Is(err, net.ErrClosed) {
				t.Errorf("%v", err)
			}
		}
	})
	t.Run("by the supervisor", func(t *testing.T) {
		p := newPassing(t, "tcp", ServerOptions{PauseOnConnect: true})
		client := p.dial()
		c := p.next()
		done := p.passOn(t.Context(), c)
		id, other := p.asked()
		written := returns(func() error { _, err := c.Write([]byte("first")); return err })
		p.m.send(proto.Envelope{Re: id, Body: proto.Error{Code: "ENOENT", Errno: int(syscall.ENOENT), Message: "nobody"}})
		var e *Error
		if err := <-done; !errors.Is(err, syscall.ENOENT) || !errors.As(err, &e) || errors.Is(err, net.ErrClosed) {
			t.Errorf("%v", err)
		}
		if err := <-written; err != nil {
			t.Errorf("a Write that waited: %v", err)
		}
		_ = other.Close()
		_, _ = io.ReadFull(client, make([]byte, 5))
		c.Resume()
		hears(t, c, client)
	})
	t.Run("before it was asked", func(t *testing.T) {
		p := newPassing(t, "tcp", ServerOptions{PauseOnConnect: true})
		client := p.dial()
		c := p.next()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := c.PassOn(ctx); !errors.Is(err, context.Canceled) || errors.Is(err, net.ErrClosed) {
			t.Errorf("%v", err)
		}
		c.Resume()
		hears(t, c, client)
	})
	// Whether another worker has it nobody knows: it is never served twice.
	for name, end := range map[string]func(*passing, context.CancelFunc){
		"context":    func(_ *passing, cancel context.CancelFunc) { cancel() },
		"link":       func(p *passing, _ context.CancelFunc) { _ = p.m.conn.Close() },
		"worker":     func(p *passing, _ context.CancelFunc) { _ = p.w.Close() },
		"new master": func(p *passing, _ context.CancelFunc) { p.m.send(proto.Envelope{Body: welcome(2)}) },
	} {
		t.Run("no answer, "+name, func(t *testing.T) {
			p := newPassing(t, "tcp", ServerOptions{PauseOnConnect: true})
			client := p.dial()
			c := p.next()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			done := p.passOn(ctx, c)
			_, other := p.asked()
			end(p, cancel)
			if err := <-done; !errors.Is(err, net.ErrClosed) {
				t.Errorf("%v", err)
			}
			if p.Connections() != 0 {
				t.Error("it is counted")
			}
			hears(t, other, client)
		})
	}
	t.Run("not the supervisor's", func(t *testing.T) {
		r := newRig(t, ServerOptions{})
		r.listen("127.0.0.1:0")
		_, c := r.connect()
		if err := c.PassOn(t.Context()); !errors.Is(err, ErrStandAlone) {
			t.Errorf("stand-alone: %v", err)
		}
		w, _ := joined(t)
		r = newRig(t, ServerOptions{Worker: w})
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if err := r.ListenOn(t.Context(), l); err != nil {
			t.Fatal(err)
		}
		client, c := r.connect()
		if err := c.PassOn(t.Context()); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("ListenOn: %v", err)
		}
		_, _ = io.WriteString(client, "line")
		hears(t, c, client)
	})
}

// What was not sent when the Worker is closed is not sent then: its caller goes on
// with the connection.
func TestServerPassOnUnsent(t *testing.T) {
	p := newPassing(t, "tcp", ServerOptions{PauseOnConnect: true})
	client := p.dial()
	c := p.next()
	id, r := uint64(900), &request{body: proto.Pass{Handle: 3}, answer: make(chan answer, 1)}
	f, err := dupConn(c.conn.(syscall.Conn))
	if err != nil {
		t.Fatal(err)
	}
	p.w.mu.Lock() // the writer waits
	p.w.pending[id] = r
	p.w.push(outgoing{e: proto.Envelope{ID: id, Body: r.body}, file: f})
	p.w.failPending(ErrClosed)
	p.w.mu.Unlock()
	if a := <-r.answer; a.err != ErrClosed || r.sent || f.Fd() >= 0 {
		t.Errorf("%+v, sent %v, file %v", a, r.sent, f)
	}
	c.Resume()
	hears(t, c, client)
}
