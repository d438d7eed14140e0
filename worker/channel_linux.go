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

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
	"github.com/f72e338e/supervisord/internal/proto"
)

// channel is what a worker has of a dispatched handle: connections arrive on it
// that the master accepted (proto.Handover). To read one is to accept it, so it is
// read only when the program wants a connection: what a busy worker leaves there the
// master gives to another.
type channel struct {
	conn *fdpass.Conn
	addr net.Addr
	tcp  bool
	raw  bool // connections come without the options that they shall have
	page *memberPage

	mu    sync.Mutex    // one Accept at a time reads
	ready []*handedConn // read, not taken yet; the collector closes what nobody takes
	left  atomic.Int32  // len(ready)
	poked atomic.Bool   // watch waits for taken
	taken chan struct{} // capacity 1: next has looked, see watch
	full  bool          // said so, and not that there is room again
	buf   [proto.HandoverSize + 1]byte
}

// newChannel takes the files of a grant.
func newChannel(file, page *fdpass.File, g proto.Grant) (*channel, error) {
	counts, err := newMemberPage(page)
	if err != nil {
		_ = unix.Shutdown(file.Fd(), unix.SHUT_RDWR) // the master has this end, too
		_ = file.Close()
		return nil, err
	}
	conn, err := fdpass.NewConn(file)
	if err != nil {
		return nil, err
	}
	c := &channel{conn: conn, taken: make(chan struct{}, 1), page: counts, tcp: !proto.IsUnix(g.Network), raw: !g.Tuned}
	if !c.tcp {
		c.addr = &net.UnixAddr{Name: g.Address, Net: g.Network}
	} else if a, err := net.ResolveTCPAddr("tcp", g.Address); err == nil {
		c.addr = a
	}
	return c, nil
}

// has reports whether connections were read and wait to be taken.
func (c *channel) has() bool { return c.waiting() > 0 }

// waiting is how many connections were read and wait to be taken.
func (c *channel) waiting() int64 { return int64(c.left.Load()) }

// accept returns the next connection, and waits for one.
func (c *channel) accept() (*handedConn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.ready) == 0 {
		if err := c.receive(c.conn.Take); err != nil {
			return nil, c.opError(err)
		}
	}
	return c.pop(), nil
}

func (c *channel) pop() *handedConn {
	next := c.ready[0]
	c.ready = c.ready[1:]
	c.left.Store(int32(len(c.ready)))
	return next
}

// take returns a connection that was read and that Accept has not returned yet, nil
// when there is none. c may be nil.
func (c *channel) take() *handedConn {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.ready) == 0 {
		return nil
	}
	return c.pop()
}

// untake undoes take.
func (c *channel) untake(h *handedConn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ready = append([]*handedConn{h}, c.ready...)
	c.left.Store(int32(len(c.ready)))
}

// receive reads a message, in one of the ways of the conn. Without descriptors for
// what may be in it it says so, so that another gets it, and returns what accept(2)
// does then.
func (c *channel) receive(take func([]byte, int, func([]byte) int) (int, []*fdpass.File, error)) error {
	if c.full {
		if err := c.say(proto.Room); err != nil {
			return err
		}
		c.full = false
	}
	n, files, err := take(c.buf[:], proto.MaxHandover, handedOver)
	if errors.Is(err, fdpass.ErrFilesLost) { // somebody has just opened what was left
		for range handedOver(c.buf[:proto.HandoverSize]) {
			c.page.closed()
		}
		err = os.NewSyscallError("recvmsg", unix.EMFILE)
	}
	if errors.Is(err, unix.EMFILE) {
		if err := c.say(proto.Full); err != nil {
			return err
		}
		c.full = true
	}
	if err != nil {
		return err
	}
	h, err := proto.ReadHandover(c.buf[:n])
	if err == nil && h.Count != len(files) {
		err = fmt.Errorf("%w: %d connections with %d files", proto.ErrBadHandover, h.Count, len(files))
	}
	if err != nil {
		fdpass.CloseAll(files)
		return err
	}
	for _, f := range files {
		c.ready = append(c.ready, newHandedConn(f, c))
	}
	c.left.Store(int32(len(c.ready)))
	return nil
}

// handedOver is how many connections a message brings.
func handedOver(message []byte) int {
	h, _ := proto.ReadHandover(message)
	return h.Count
}

// room tells the master that the worker may have connections again. It does not
// block: a master that has not read what was said before will look when it does.
func (c *channel) room() {
	var b [proto.HandoverSize]byte
	proto.Room.Put(b[:])
	_ = c.conn.TrySend(b[:])
}

func (c *channel) say(s proto.Standing) error {
	var b [proto.HandoverSize]byte
	s.Put(b[:])
	return c.conn.Send(b[:])
}

func (c *channel) opError(err error) error {
	if err == fdpass.ErrClosed {
		err = net.ErrClosed
	}
	return &net.OpError{Op: "accept", Net: c.addr.Network(), Addr: c.addr, Err: err}
}

// Accept is there for net.Listener.
func (c *channel) Accept() (net.Conn, error) { return c.accept() }

// Close ends the channel. What was not read goes to another worker; what was is
// nobody else's, so Accept returns it before it fails.
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
