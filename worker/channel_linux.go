package worker

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
	"github.com/f72e338e/supervisord/internal/proto"
)

// channel is what a worker has of a dispatched handle: connections arrive on it
// that the master accepted (proto.Handover). It is read only when the program
// wants a connection, so a worker that is busy answers for nothing it cannot
// serve, and the master gives it nothing more.
type channel struct {
	conn *fdpass.Conn
	addr net.Addr
	tcp  bool
	raw  bool   // connections come without the options that they shall have
	page *int64 // how many are open, for the master to read; lives as long as the process

	mu    sync.Mutex    // one Accept at a time reads
	ready []*handedConn // answered for; the collector closes what nobody takes
	left  atomic.Int32  // len(ready)
	taken chan struct{} // capacity 1: next has read, see watch
	full  bool          // refused some, and has not said that there is room again
	buf   [proto.HandoverSize + 1]byte
}

// newChannel takes the files of a grant.
func newChannel(file, page *fdpass.File, g proto.Grant) (*channel, error) {
	defer func() { _ = page.Close() }()
	mem, err := unix.Mmap(page.Fd(), 0, 8, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		_ = file.Close()
		return nil, os.NewSyscallError("mmap", err)
	}
	conn, err := fdpass.NewConn(file)
	if err != nil {
		_ = unix.Munmap(mem)
		return nil, err
	}
	c := &channel{conn: conn, taken: make(chan struct{}, 1), page: (*int64)(unsafe.Pointer(&mem[0])), tcp: !proto.IsUnix(g.Network), raw: !g.Tuned}
	if !c.tcp {
		c.addr = &net.UnixAddr{Name: g.Address, Net: g.Network}
	} else if a, err := net.ResolveTCPAddr("tcp", g.Address); err == nil {
		c.addr = a
	}
	return c, nil
}

func (c *channel) count(by int64) { atomic.AddInt64(c.page, by) }

// has reports whether connections were answered for and wait to be taken.
func (c *channel) has() bool { return c.left.Load() > 0 }

// accept returns the next connection, and waits for one. The master hears that
// they are taken before the program sees the first of them.
func (c *channel) accept() (*handedConn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.ready) == 0 {
		if err := c.receive(); err != nil {
			return nil, c.opError(err)
		}
	}
	next := c.ready[0]
	c.ready = c.ready[1:]
	c.left.Store(int32(len(c.ready)))
	c.count(1)
	return next, nil
}

func (c *channel) receive() error {
	if c.full {
		if err := c.say(proto.Verdict{What: proto.Room}); err != nil {
			return err
		}
		c.full = false
	}
	n, files, err := c.conn.Recv(c.buf[:], proto.MaxHandover)
	if errors.Is(err, fdpass.ErrFilesLost) {
		return c.refuse()
	}
	if err != nil {
		return err
	}
	h, err := proto.ReadHandover(c.buf[:n])
	if err == nil && int(h.Count) != len(files) {
		err = fmt.Errorf("%w: %d connections with %d files", proto.ErrBadHandover, h.Count, len(files))
	}
	if err != nil {
		fdpass.CloseAll(files)
		return err
	}
	if err := c.say(proto.Verdict{First: h.First, Count: h.Count, What: proto.Accepted}); err != nil {
		fdpass.CloseAll(files) // the master hands them to another
		return err
	}
	for _, f := range files {
		c.ready = append(c.ready, newHandedConn(f, c))
	}
	c.left.Store(int32(len(files)))
	return nil
}

// refuse gives a hand-over back for which this process had no descriptors, and
// returns what accept(2) does then. Without a verdict the worker would be busy for
// good, and these connections with it.
func (c *channel) refuse() error {
	h, err := proto.ReadHandover(c.buf[:proto.HandoverSize])
	if err == nil {
		err = c.say(proto.Verdict{First: h.First, Count: h.Count, What: proto.Refused})
	}
	if err != nil {
		return err
	}
	c.full = true
	return os.NewSyscallError("recvmsg", unix.EMFILE)
}

// room tells the master that the worker may have connections again. It does not
// block: a master that has not read what was said before will look when it does.
func (c *channel) room() {
	var b [proto.HandoverSize]byte
	proto.Verdict{What: proto.Room}.Put(b[:])
	_ = c.conn.TrySend(b[:])
}

// say answers the master; it changes buf.
func (c *channel) say(v proto.Verdict) error {
	v.Put(c.buf[:proto.HandoverSize])
	return c.conn.Send(c.buf[:proto.HandoverSize])
}

func (c *channel) opError(err error) error {
	if err == fdpass.ErrClosed {
		err = net.ErrClosed
	}
	return &net.OpError{Op: "accept", Net: c.addr.Network(), Addr: c.addr, Err: err}
}

// Accept is there for net.Listener.
func (c *channel) Accept() (net.Conn, error) { return c.accept() }

// Close ends the channel. What was not answered for goes to another worker; what
// was is nobody else's, so Accept returns it before it fails.
func (c *channel) Close() error { return c.conn.Close() } // wakes an Accept that waits

// Addr is the address that the master listens on.
func (c *channel) Addr() net.Addr { return c.addr }

// SetDeadline bounds Accept.
func (c *channel) SetDeadline(t time.Time) error { return c.conn.SetReadDeadline(t) }

// SyscallConn lends the channel, readable when a hand-over waits.
func (c *channel) SyscallConn() (syscall.RawConn, error) { return c.conn.SyscallConn() }

// handedConn is a counted connection that came over a channel.
type handedConn struct {
	*socketFile
	tally tally
}

func (c *handedConn) count() *tally { return &c.tally }

// Close closes the connection, and counts it out once.
func (c *handedConn) Close() error { return c.tally.close(c.socketFile) }

// socketFile is a connected socket as an os.File, which costs a third of the
// system calls of net.FileConn.
type socketFile struct {
	*os.File
	network string
}

// newHandedConn takes f. TCP connections get what the net package gives those
// that it accepts: no delay, and keep-alive probes.
func newHandedConn(f *fdpass.File, c *channel) *handedConn {
	fd := f.Release()
	network := "unix"
	if c.tcp {
		network = "tcp"
	}
	if c.tcp && c.raw {
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, keepAliveSeconds)
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, keepAliveSeconds)
	}
	return &handedConn{socketFile: &socketFile{os.NewFile(uintptr(fd), network), network}}
}

// keepAliveSeconds is the default of net.ListenConfig.
const keepAliveSeconds = 15

// Read reads with the errors of a net.Conn: net/http tells a time-out and a reset
// from a malformed request by their type.
func (s *socketFile) Read(b []byte) (int, error) {
	n, err := s.File.Read(b)
	return n, s.opError("read", err)
}

// Write writes, with the errors of a net.Conn.
func (s *socketFile) Write(b []byte) (int, error) {
	n, err := s.File.Write(b)
	return n, s.opError("write", err)
}

// ReadFrom copies from r. An os.File has no short cut to a socket.
func (s *socketFile) ReadFrom(r io.Reader) (int64, error) {
	return io.Copy(struct{ io.Writer }{s}, r)
}

// WriteTo copies to w.
func (s *socketFile) WriteTo(w io.Writer) (int64, error) {
	return io.Copy(w, struct{ io.Reader }{s})
}

func (s *socketFile) opError(op string, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	var pe *os.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	if errors.Is(err, os.ErrClosed) {
		err = net.ErrClosed
	} else if errno, ok := err.(syscall.Errno); ok {
		err = os.NewSyscallError(op, errno)
	}
	return &net.OpError{Op: op, Net: s.network, Source: s.LocalAddr(), Addr: s.RemoteAddr(), Err: err}
}

// CloseWrite shuts the writing side down.
func (s *socketFile) CloseWrite() error { return s.shutdown(unix.SHUT_WR) }

// CloseRead shuts the reading side down.
func (s *socketFile) CloseRead() error { return s.shutdown(unix.SHUT_RD) }

func (s *socketFile) shutdown(how int) error {
	var serr error
	if err := s.control(func(fd int) { serr = unix.Shutdown(fd, how) }); err != nil {
		return err
	}
	return os.NewSyscallError("shutdown", serr)
}

// SetNoDelay is net.TCPConn's.
func (s *socketFile) SetNoDelay(on bool) error {
	n := 0
	if on {
		n = 1
	}
	var serr error
	if err := s.control(func(fd int) { serr = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, n) }); err != nil {
		return err
	}
	return os.NewSyscallError("setsockopt", serr)
}

// LocalAddr is the address the client connected to.
func (s *socketFile) LocalAddr() net.Addr { return s.address(unix.Getsockname) }

// RemoteAddr is the client's.
func (s *socketFile) RemoteAddr() net.Addr { return s.address(unix.Getpeername) }

func (s *socketFile) address(get func(int) (unix.Sockaddr, error)) net.Addr {
	var sa unix.Sockaddr
	_ = s.control(func(fd int) { sa, _ = get(fd) })
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return &net.TCPAddr{IP: append(net.IP(nil), sa.Addr[:]...), Port: sa.Port}
	case *unix.SockaddrInet6:
		a := &net.TCPAddr{IP: append(net.IP(nil), sa.Addr[:]...), Port: sa.Port}
		if sa.ZoneId != 0 {
			a.Zone = fmt.Sprint(sa.ZoneId)
			if i, err := net.InterfaceByIndex(int(sa.ZoneId)); err == nil {
				a.Zone = i.Name
			}
		}
		return a
	case *unix.SockaddrUnix:
		return &net.UnixAddr{Name: sa.Name, Net: s.network}
	}
	if s.network == "tcp" {
		return &net.TCPAddr{}
	}
	return &net.UnixAddr{Net: s.network}
}

func (s *socketFile) control(fn func(fd int)) error {
	raw, err := s.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Control(func(fd uintptr) { fn(int(fd)) })
}
