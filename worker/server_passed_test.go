//go:build linux

package worker

import (
	"io"
	"net"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
	"github.com/f72e338e/supervisord/internal/dispatch"
	"github.com/f72e338e/supervisord/internal/proto"
)

// handOver gives the worker a channel of handle 3, and returns who uses it.
func (p *passing) handOver() (h *handing, page []byte) {
	p.t.Helper()
	d, err := dispatch.New(dispatch.Options{})
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(d.Close)
	d.Add(1, dispatch.LeastConnections)
	h = &handing{t: p.t, d: d, addr: p.address}
	file, pf, err := h.channel(drained)
	if err != nil {
		p.t.Fatal(err)
	}
	if page, err = unix.Mmap(pf.Fd(), 0, 16, unix.PROT_READ, unix.MAP_SHARED); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = unix.Munmap(page) })
	p.m.send(proto.Envelope{Body: proto.Channel{Handle: 3}}, file, pf)
	p.m.send(proto.Envelope{Body: proto.Channel{Handle: 4}}, file, pf) // of nobody: closed
	fdpass.CloseAll([]*fdpass.File{file, pf})
	return h, page
}

// passed makes a connection that another worker passed on.
func (p *passing) passed(h *handing) (client net.Conn) {
	p.t.Helper()
	l, err := net.Listen(p.network, map[bool]string{true: "127.0.0.1:0", false: filepath.Join(p.t.TempDir(), "other")}[p.network == "tcp"])
	if err != nil {
		p.t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if client, err = net.Dial(p.network, l.Addr().String()); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = client.Close() })
	_, _ = io.WriteString(client, "line")
	c, err := l.Accept()
	if err != nil {
		p.t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	f, err := dupConn(c.(syscall.Conn))
	if err != nil {
		p.t.Fatal(err)
	}
	if err := h.d.Pass(1, dispatch.Passed{From: 99, Connection: f}); err != nil {
		p.t.Fatal(err)
	}
	return client
}

func TestServerPassedOn(t *testing.T) {
	for _, network := range []string{"tcp", "unix", "unixpacket"} {
		t.Run(network, func(t *testing.T) {
			p := newPassing(t, network, ServerOptions{})
			own := p.dial()
			first := p.next()
			h, page := p.handOver()
			shows := func(closed byte) {
				t.Helper()
				eventually(t, "the page", func() bool { return page[0] == 1 && page[8] == closed })
			}
			shows(0)
			for i := range byte(3) {
				client := p.passed(h)
				c := p.next()
				if _, ok := c.NetConn().(interface {
					ReadFrom(io.Reader) (int64, error)
				}); network == "tcp" && !ok {
					t.Errorf("Accept returned %T", c.NetConn())
				}
				hears(t, c, client)
				shows(i)
				_ = c.Close()
				shows(i + 1)
			}
			hears(t, first, own)
			_ = first.Close()
			shows(4)
			another := p.dial()
			hears(t, p.next(), another)
		})
	}
}

// What a worker has not answered for when it closes goes to another; at a drain it is
// taken first.
func TestServerPassedOnDrain(t *testing.T) {
	p := newPassing(t, "tcp", ServerOptions{MaxConnections: 1})
	h, _ := p.handOver()
	p.dial()
	first := p.next()
	client := p.passed(h) // waits: the server is full
	_ = p.Stop()
	l := h.listener(another)
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	hears(t, c, client)
	_ = first.Close()

	q := newPassing(t, "tcp", ServerOptions{})
	h, _ = q.handOver()
	for range 3 {
		client = q.passed(h)
		hears(t, q.next(), client)
	}
	client = q.passed(h)
	q.m.send(proto.Envelope{Body: proto.Drain{DeadlineMS: 60_000}})
	select {
	case c := <-q.socks:
		hears(t, c, client)
		_ = c.Close()
	case c := <-accepts(h.listener(another)): // it was closed first
		hears(t, c, client)
		_ = c.Close()
	}
}

func accepts(l net.Listener) <-chan net.Conn {
	got := make(chan net.Conn, 1)
	go func() {
		if c, err := l.Accept(); err == nil {
			got <- c
		}
	}()
	return got
}
