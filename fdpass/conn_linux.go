package fdpass

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Conn is one end of a SOCK_SEQPACKET socket. Send may be called from several
// goroutines, and so may Recv; a packet is always whole.
type Conn struct {
	file *os.File
	raw  interface {
		Read(func(uintptr) bool) error
		Write(func(uintptr) bool) error
		Control(func(uintptr)) error
	}
	oob    sync.Pool
	closed atomic.Bool // the runtime's error for a file that is being closed has no exported name
}

// Pair returns both ends of a new SOCK_SEQPACKET socket pair (socketpair(2)).
// Both are close-on-exec; the peer that is to be inherited by another program
// is taken out with [Conn.Detach]. Errors: EMFILE, ENFILE.
func Pair() (a, b *Conn, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	if a, err = NewConn(NewFile(fds[0])); err != nil {
		_ = unix.Close(fds[1])
		return nil, nil, err
	}
	if b, err = NewConn(NewFile(fds[1])); err != nil {
		_ = a.Close()
		return nil, nil, err
	}
	return a, b, nil
}

// NewConn takes f, which must be a SOCK_SEQPACKET socket, sets it close-on-exec
// and non-blocking, and uses it as a Conn. On an error f is closed.
// Errors: ErrClosed, ENOTSOCK, EPROTOTYPE for another type of socket.
func NewConn(f *File) (*Conn, error) {
	fd := f.Release()
	if fd < 0 {
		return nil, ErrClosed
	}
	typ, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err == nil && typ != unix.SOCK_SEQPACKET {
		err = unix.EPROTOTYPE
	}
	if err == nil {
		unix.CloseOnExec(fd)
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("fdpass: fd %d cannot be a link: %w", fd, err)
	}
	c := &Conn{file: os.NewFile(uintptr(fd), "link")}
	c.oob.New = func() any { b := make([]byte, unix.CmsgSpace(4*MaxFiles)+unix.CmsgSpace(unix.SizeofUcred)); return &b }
	raw, err := c.file.SyscallConn()
	if err != nil {
		_ = c.file.Close()
		return nil, err
	}
	c.raw = raw
	return c, nil
}

// Detach ends the Conn and gives its descriptor away, blocking again, as a program
// expects what it inherits. It is for a new Conn that no goroutine uses yet, on its
// way to another process.
func (c *Conn) Detach() (*File, error) {
	var n int
	var err error
	cerr := c.raw.Control(func(fd uintptr) {
		if n, err = dupFd(int(fd)); err == nil {
			err = unix.SetNonblock(n, false)
		}
	})
	if cerr != nil {
		return nil, c.mapClosed(cerr)
	}
	if err != nil {
		return nil, err
	}
	return NewFile(n), c.Close()
}

// Close closes the socket and wakes every Send and Recv, which return ErrClosed.
func (c *Conn) Close() error {
	c.closed.Store(true)
	return c.mapClosed(c.file.Close())
}

// SetWriteDeadline bounds every Send that is waiting or still to come. The zero
// time means no bound. A Send that runs out of time returns os.ErrDeadlineExceeded
// and has sent nothing.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.mapClosed(c.file.SetWriteDeadline(t)) }

// SetReadDeadline bounds every Recv that is waiting or still to come; it then
// returns os.ErrDeadlineExceeded. The zero time means no bound.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.mapClosed(c.file.SetReadDeadline(t)) }

// SyscallConn lends the descriptor, for a look at it; the Conn still owns it.
func (c *Conn) SyscallConn() (syscall.RawConn, error) { return c.file.SyscallConn() }

// Send sends one packet with the given files, which it borrows. It blocks while
// the peer's buffer is full. Errors: ErrTooLarge, ErrTooManyFiles, ErrClosed,
// EPIPE or ECONNRESET when the peer is gone, ETOOMANYREFS when too many
// descriptors are in flight (unix(7)), os.ErrDeadlineExceeded.
func (c *Conn) Send(data []byte, files ...*File) error {
	oob, err := rights(data, files)
	if err != nil {
		return err
	}
	var serr error
	err = c.raw.Write(func(fd uintptr) bool {
		serr = sendPacket(int(fd), data, oob)
		return serr != unix.EAGAIN
	})
	return c.sendResult(err, serr)
}

// TrySend is Send that does not wait: when the peer's buffer is full it returns
// EAGAIN and has sent nothing.
func (c *Conn) TrySend(data []byte, files ...*File) error {
	oob, err := rights(data, files)
	if err != nil {
		return err
	}
	var serr error
	err = c.raw.Control(func(fd uintptr) { serr = sendPacket(int(fd), data, oob) })
	return c.sendResult(err, serr)
}

func (c *Conn) sendResult(err, serr error) error {
	if err != nil {
		return c.mapClosed(err)
	}
	if serr != nil {
		return os.NewSyscallError("sendmsg", serr)
	}
	return nil
}

func rights(data []byte, files []*File) ([]byte, error) {
	if len(data) > MaxMessage || len(data) == 0 {
		return nil, fmt.Errorf("%w: %d bytes (1 to %d)", ErrTooLarge, len(data), MaxMessage)
	}
	if len(files) > MaxFiles {
		return nil, fmt.Errorf("%w: %d (at most %d)", ErrTooManyFiles, len(files), MaxFiles)
	}
	if len(files) == 0 {
		return nil, nil
	}
	fds := make([]int, len(files))
	for i, f := range files {
		if fds[i] = f.Fd(); fds[i] < 0 {
			return nil, ErrClosed
		}
	}
	return unix.UnixRights(fds...), nil
}

func sendPacket(fd int, data, oob []byte) error {
	for {
		_, err := unix.SendmsgN(fd, data, oob, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
		if err != unix.EINTR {
			return err
		}
	}
}

// Recv waits for one packet, copies it to buf and returns its length with the
// files that came with it, at most maxFiles; the caller owns them. At the end of
// the stream it returns io.EOF (an empty packet counts as the end: Send never
// makes one).
//
// A packet that does not fit buf gives ErrTooLarge, one with more files than
// maxFiles ErrTooManyFiles, one whose files the kernel dropped ErrFilesLost; its
// files are closed, and the Conn stays usable. Other errors: ErrClosed,
// ECONNRESET.
func (c *Conn) Recv(buf []byte, maxFiles int) (n int, files []*File, err error) {
	return c.recv(buf, maxFiles, c.raw.Read, func(uintptr) error { return nil })
}

// Take is Recv for packets whose files must not be lost: when this process has no
// room for them it returns EMFILE, and the packet stays where it is. count tells from
// the data how many they are; it is asked where there is no room for maxFiles, and not
// told of more than 256 bytes. Other goroutines that open files at that very moment may
// prove it wrong: ErrFilesLost.
func (c *Conn) Take(buf []byte, maxFiles int, count func(data []byte) int) (n int, files []*File, err error) {
	return c.recv(buf, maxFiles, c.raw.Read, roomFor(maxFiles, count))
}

// TryTake is Take that does not wait: without a packet it returns EAGAIN.
func (c *Conn) TryTake(buf []byte, maxFiles int, count func(data []byte) int) (n int, files []*File, err error) {
	return c.recv(buf, maxFiles, func(try func(uintptr) bool) error {
		return c.raw.Control(func(fd uintptr) { try(fd) })
	}, roomFor(maxFiles, count))
}

// roomFor returns a check that fails when a packet waits and there is no room for
// its files.
func roomFor(most int, count func(data []byte) int) func(fd uintptr) error {
	return func(fd uintptr) error {
		if HasRoom(most) {
			return nil
		}
		var head [256]byte
		n, _, err := unix.Recvfrom(int(fd), head[:], unix.MSG_PEEK|unix.MSG_DONTWAIT) // which opens no files
		if err != nil || HasRoom(count(head[:max(0, n)])) {
			return err
		}
		return unix.EMFILE
	}
}

// recv receives where try lets it and check finds nothing wrong.
func (c *Conn) recv(buf []byte, maxFiles int, try func(func(uintptr) bool) error, check func(uintptr) error) (n int, files []*File, err error) {
	oobp := c.oob.Get().(*[]byte)
	defer c.oob.Put(oobp)
	oob := *oobp
	var oobn, flags int
	var rerr error
	err = try(func(fd uintptr) bool {
		if rerr = check(fd); rerr != nil {
			return rerr != unix.EAGAIN
		}
		for {
			n, oobn, flags, _, rerr = unix.Recvmsg(int(fd), buf, oob, unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
			if rerr != unix.EINTR {
				break
			}
		}
		return rerr != unix.EAGAIN
	})
	if err != nil {
		return 0, nil, c.mapClosed(err)
	}
	if rerr != nil {
		return 0, nil, os.NewSyscallError("recvmsg", rerr)
	}
	files = received(oob[:oobn])
	switch {
	case flags&unix.MSG_CTRUNC != 0:
		err = ErrFilesLost
	case flags&unix.MSG_TRUNC != 0:
		err = fmt.Errorf("%w: more than %d bytes", ErrTooLarge, len(buf))
	case len(files) > maxFiles:
		err = fmt.Errorf("%w: %d (allowed here: %d)", ErrTooManyFiles, len(files), maxFiles)
	case n == 0:
		err = io.EOF
	}
	if err != nil {
		CloseAll(files)
		return 0, nil, err
	}
	return n, files, nil
}

// received takes every descriptor out of the control messages, whatever else
// they hold, so that none can be left open by an oddly built packet.
func received(oob []byte) []*File {
	var files []*File
	for len(oob) >= unix.CmsgLen(0) {
		h, data, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			break
		}
		oob = rest
		if h.Level != unix.SOL_SOCKET || h.Type != unix.SCM_RIGHTS {
			continue
		}
		fds, err := unix.ParseUnixRights(&unix.SocketControlMessage{Header: h, Data: data})
		if err != nil {
			continue
		}
		for _, fd := range fds {
			files = append(files, NewFile(fd))
		}
	}
	return files
}

func (c *Conn) mapClosed(err error) error {
	if err != nil && (c.closed.Load() || errors.Is(err, os.ErrClosed)) {
		return ErrClosed
	}
	return err
}

func closeFd(fd int) error { return os.NewSyscallError("close", unix.Close(fd)) }

func dupFd(fd int) (int, error) {
	n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	return n, os.NewSyscallError("fcntl", err)
}
