package worker

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Bounds of linger.
const (
	lingerTime  = time.Second
	lingerBytes = 256 << 10
)

// tcpConn is a counted connection. Whatever a *net.TCPConn can do it can do:
// ReadFrom (sendfile, splice), SyscallConn, CloseWrite.
type tcpConn struct {
	*net.TCPConn
	tally tally
}

// unixConn is a counted connection of a Unix socket.
type unixConn struct {
	*net.UnixConn
	tally tally
}

// tally is a connection's part in the counts.
type tally struct {
	l      *listener
	handed bool // by the supervisor, not the kernel
	spare  bool // it came on a socket that is another slot's
	closed atomic.Bool
	asked  atomic.Bool // an HTTP request is being answered: see linger
}

// counted is a tcpConn or unixConn.
type counted interface{ count() *tally }

func (c *tcpConn) count() *tally  { return &c.tally }
func (c *unixConn) count() *tally { return &c.tally }

// Close closes the connection, and counts it out once.
func (c *tcpConn) Close() error { return c.tally.close(c.TCPConn) }

// Close closes the connection, and counts it out once.
func (c *unixConn) Close() error { return c.tally.close(c.UnixConn) }

type halfCloser interface {
	net.Conn
	CloseWrite() error
}

func (t *tally) close(c halfCloser) error {
	if t.closed.Swap(true) {
		return c.Close()
	}
	if t.l.lingers.Load() && t.asked.Load() {
		go t.linger(c)
		return nil
	}
	err := c.Close()
	t.l.leave(t)
	return err
}

// linger closes a connection of a draining HTTP server in two steps (RFC 9112,
// 9.6): a client that had sent one request more before it saw our answer with
// "Connection: close" would otherwise cause a reset, which may overtake that
// answer. An idle connection has no such answer under way, and one that was
// hijacked is the application's. It ends with the client's own close, or by lingerTime, and the
// connection counts as open so long, so that the drain waits for it.
func (t *tally) linger(c halfCloser) {
	defer t.l.leave(t)
	defer func() { _ = c.Close() }()
	if c.CloseWrite() != nil || c.SetReadDeadline(time.Now().Add(lingerTime)) != nil {
		return
	}
	_, _ = io.CopyN(io.Discard, c, lingerBytes)
}

// tallyOf finds the counted connection below a TLS one; nil for one that is not
// ours.
func tallyOf(c net.Conn) *tally {
	for {
		switch in := c.(type) {
		case counted:
			return in.count()
		case interface{ NetConn() net.Conn }:
			c = in.NetConn()
		default:
			return nil
		}
	}
}

type udpConn struct {
	*net.UDPConn
	once  sync.Once
	given func()
}

type unixgramConn struct {
	*net.UnixConn
	once  sync.Once
	given func()
}

// Close closes this worker's descriptor and gives the socket back.
func (c *udpConn) Close() error {
	err := c.UDPConn.Close()
	c.once.Do(c.given)
	return err
}

// Close closes this worker's descriptor and gives the socket back.
func (c *unixgramConn) Close() error {
	err := c.UnixConn.Close()
	c.once.Do(c.given)
	return err
}

// packet lets pc give its socket back when it is closed.
func packet(pc net.PacketConn, given func()) net.PacketConn {
	switch c := pc.(type) {
	case *net.UDPConn:
		return &udpConn{UDPConn: c, given: given}
	case *net.UnixConn:
		return &unixgramConn{UnixConn: c, given: given}
	}
	return pc
}
