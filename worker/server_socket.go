package worker

import (
	"bufio"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Socket is a connection of a [Server]. It is a net.Conn with what the
// reference's net.Socket has beyond one: a half-open mode, pause and resume. All
// methods may be called from any goroutine.
type Socket struct {
	conn    net.Conn
	server  *Server
	period  *period
	foreign bool // not counted by a listener of ours
	closed  atomic.Bool
	ended   atomic.Bool  // the peer has finished, and so have we
	writing atomic.Int32 // writes under way
	gate    gate
	passing touch

	reading sync.Mutex    // buffer
	buffer  *bufio.Reader // nil until the first Read, and without ReadBufferSize
}

// newSocket takes c and counts it.
func (s *Server) newSocket(per *period, c net.Conn) *Socket {
	sock := &Socket{conn: c, server: s, period: per}
	if tallyOf(c) == nil {
		sock.foreign = true
		per.w.open.Add(1)
		per.w.accepted.Add(1)
		per.w.changed()
	}
	if s.options.PauseOnConnect {
		sock.gate.shut.Store(true)
	}
	s.open.Add(1)
	per.open.Add(1)
	return sock
}

// Draining is closed when the server accepts no more: its worker drains, or it
// was closed. It is the moment to finish, and to say so to the peer.
func (c *Socket) Draining() <-chan struct{} { return c.period.stopping }

// Server is the server that accepted the connection.
func (c *Socket) Server() *Server { return c.server }

// NetConn returns the connection below, which the Socket goes on owning. What is
// read there misses what was read ahead, and the end of the stream.
func (c *Socket) NetConn() net.Conn {
	c.passing.touch()
	return c.conn
}

// Read reads as net.Conn has it. While the Socket is paused it waits. At the end
// of the stream it returns io.EOF, and the Socket is closed unless the server has
// AllowHalfOpen.
func (c *Socket) Read(p []byte) (int, error) {
	for {
		if err := c.gate.pass(); err != nil {
			return 0, c.failed("read", err)
		}
		if c.ended.Load() {
			return 0, io.EOF
		}
		n, err := c.read(p)
		switch {
		case err == io.EOF:
			c.peerEnded()
		case n == 0 && errors.Is(err, os.ErrDeadlineExceeded) && c.gate.interrupted():
			continue // by Pause, not by the application's deadline
		}
		return n, err
	}
}

func (c *Socket) read(p []byte) (int, error) {
	c.passing.touch()
	size := c.server.options.ReadBufferSize
	if size <= 0 {
		return c.conn.Read(p)
	}
	c.reading.Lock()
	defer c.reading.Unlock()
	if c.buffer == nil {
		c.buffer = bufio.NewReaderSize(c.conn, size)
	}
	return c.buffer.Read(p)
}

// WriteTo is Read until the end for io.Copy: it uses splice(2) where the
// connection below does, and waits while the Socket is paused.
func (c *Socket) WriteTo(w io.Writer) (n int64, err error) {
	to, ok := c.conn.(io.WriterTo)
	if !ok || c.server.options.ReadBufferSize > 0 {
		return io.Copy(w, struct{ io.Reader }{c})
	}
	for {
		pauses := c.gate.pauses.Load()
		if err := c.gate.pass(); err != nil {
			return n, c.failed("read", err)
		}
		if c.ended.Load() {
			return n, nil
		}
		c.passing.touch()
		more, err := to.WriteTo(w)
		n += more
		if err == nil {
			c.peerEnded()
		} else if errors.Is(err, os.ErrDeadlineExceeded) && pauses != c.gate.pauses.Load() && c.gate.interrupted() {
			continue // by Pause, not by a deadline of the application
		}
		return n, err
	}
}

func (c *Socket) failed(op string, err error) error {
	return &net.OpError{Op: op, Net: c.LocalAddr().Network(), Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}

// Write writes as net.Conn has it: it returns when the kernel has all of p.
// Errors: those of net.Conn; EPIPE when the peer has finished and the server does
// not have AllowHalfOpen.
func (c *Socket) Write(p []byte) (int, error) {
	if err := c.beginWrite(); err != nil {
		return 0, err
	}
	defer c.endWrite()
	return c.conn.Write(p)
}

// ReadFrom is for io.Copy: it uses sendfile(2) or splice(2) where the connection
// below does. It is one write, which a Socket whose peer has finished still waits
// for.
func (c *Socket) ReadFrom(r io.Reader) (int64, error) {
	if err := c.beginWrite(); err != nil {
		return 0, err
	}
	defer c.endWrite()
	return io.Copy(c.conn, r)
}

func (c *Socket) beginWrite() error {
	c.passing.touch()
	c.writing.Add(1)
	if !c.ended.Load() {
		return nil
	}
	c.endWrite()
	return c.failed("write", syscall.EPIPE)
}

func (c *Socket) endWrite() {
	if c.writing.Add(-1) == 0 && c.ended.Load() {
		_ = c.Close()
	}
}

// peerEnded answers the end of the peer's stream with the end of ours, behind
// whatever is being written.
func (c *Socket) peerEnded() {
	if c.server.options.AllowHalfOpen {
		return
	}
	c.ended.Store(true)
	if c.writing.Load() == 0 {
		_ = c.Close()
	}
}

// CloseWrite ends our stream; the peer's goes on. Errors: those of the connection
// below; errors.ErrUnsupported when it has no halves.
func (c *Socket) CloseWrite() error {
	c.passing.touch()
	if half, ok := c.conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// Close closes the connection and counts it out. A second Close does nothing and
// returns nil, also when the first was the Socket's own.
func (c *Socket) Close() error {
	if c.closed.Swap(true) {
		return nil
	}
	c.gate.close()
	err := c.conn.Close()
	if c.foreign {
		c.period.w.open.Add(-1)
		c.period.w.changed()
	}
	c.server.leave(c.period)
	return err
}

// leave counts a connection out.
func (s *Server) leave(per *period) {
	s.open.Add(-1)
	if s.limit.Load() != 0 {
		s.poke()
	}
	if per.open.Add(-1) == 0 {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.settle(per)
	}
}

// LocalAddr is the address of this end.
func (c *Socket) LocalAddr() net.Addr { return c.conn.LocalAddr() }

// RemoteAddr is the address of the peer.
func (c *Socket) RemoteAddr() net.Addr { return c.conn.RemoteAddr() }

// SetDeadline sets the deadline of reads and writes; zero is none.
func (c *Socket) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline sets the deadline of reads, those that wait for Resume
// included; zero is none.
func (c *Socket) SetReadDeadline(t time.Time) error { return c.gate.setDeadline(c.conn, t) }

// SetWriteDeadline sets the deadline of writes; zero is none.
func (c *Socket) SetWriteDeadline(t time.Time) error { return c.conn.SetWriteDeadline(t) }

// SyscallConn gives access to the descriptor. Errors: errors.ErrUnsupported when
// the connection below has none.
func (c *Socket) SyscallConn() (syscall.RawConn, error) {
	c.passing.touch()
	if raw, ok := c.conn.(syscall.Conn); ok {
		return raw.SyscallConn()
	}
	return nil, errors.ErrUnsupported
}

// Pause stops reading: a Read waits from here on, one that is under way included.
// What was read ahead stays where it is. Pausing again does nothing.
func (c *Socket) Pause() { c.gate.pause(c.conn) }

// Resume undoes Pause and PauseOnConnect.
func (c *Socket) Resume() {
	c.passing.touch()
	c.gate.resume(c.conn)
}

// IsPaused reports whether reads wait for Resume.
func (c *Socket) IsPaused() bool { return c.gate.shut.Load() }
