package worker

import (
	"context"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
	"github.com/f72e338e/supervisord/internal/proto"
	"github.com/f72e338e/supervisord/internal/socket"
)

// fileListener takes f. The net package makes its own descriptor of the same
// open file, which is non-blocking already and stays so throughout: os.NewFile
// remembers that it was, and File.Fd then does not make it blocking.
func fileListener(f *fdpass.File) (net.Listener, error) {
	file := os.NewFile(uintptr(f.Release()), "socket")
	defer func() { _ = file.Close() }()
	return net.FileListener(file)
}

// filePacketConn takes f; see fileListener.
func filePacketConn(f *fdpass.File) (net.PacketConn, error) {
	file := os.NewFile(uintptr(f.Release()), "socket")
	defer func() { _ = file.Close() }()
	return net.FilePacketConn(file)
}

// dup returns another listener of the same socket, with a descriptor of its own.
func (l *listener) dup() (net.Listener, error) {
	raw, err := l.SyscallConn()
	if err != nil {
		return nil, err
	}
	var copied net.Listener
	if cerr := raw.Control(func(fd uintptr) { copied, err = adopt(fd, 0) }); cerr != nil {
		return nil, cerr
	}
	return copied, err
}

// adopt borrows a socket and returns a listener with a descriptor of its own. It
// calls listen(2) only when nobody did.
func adopt(fd uintptr, backlog int) (net.Listener, error) {
	n, err := unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := fdpass.NewFile(n)
	network, _, _, err := socket.Address(n)
	if err == nil && proto.IsDatagram(network) {
		err = unix.EINVAL
	}
	if err == nil {
		_, err = socket.Adopt(f, proto.SocketSpec{Network: network, Backlog: backlog})
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return fileListener(f)
}

// dupConn returns a second descriptor of a connection, owned by the caller.
func dupConn(c syscall.Conn) (*fdpass.File, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	var n int
	var derr error
	if err := raw.Control(func(fd uintptr) { n, derr = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) }); err != nil {
		return nil, err
	}
	if derr != nil {
		return nil, os.NewSyscallError("fcntl", derr)
	}
	return fdpass.NewFile(n), nil
}

// readable reports whether accept(2) on fd would not have to wait.
func readable(fd uintptr) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(p, 0)
	return err == nil && n == 1 && p[0].Revents&unix.POLLIN != 0
}

func (w *Worker) listenAlone(ctx context.Context, network, address string, o listenOptions) (net.Listener, error) {
	f, b, err := bind(ctx, network, address, o)
	if err != nil {
		return nil, err
	}
	inner, err := fileListener(f)
	if err != nil {
		_ = socket.Unlink(b)
		return nil, err
	}
	return newListener(w, inner, func() { _ = socket.Unlink(b) })
}

func listenPacketAlone(ctx context.Context, network, address string, o listenOptions) (net.PacketConn, error) {
	f, b, err := bind(ctx, network, address, o)
	if err != nil {
		return nil, err
	}
	pc, err := filePacketConn(f)
	if err != nil {
		_ = socket.Unlink(b)
		return nil, err
	}
	return packet(pc, func() { _ = socket.Unlink(b) }), nil
}

func bind(ctx context.Context, network, address string, o listenOptions) (*fdpass.File, proto.Bound, error) {
	m, err := spec(ctx, network, address, o)
	if err != nil {
		return nil, proto.Bound{}, err
	}
	return socket.Bind(proto.SocketSpec{Network: m.Network, Address: m.Address, Port: m.Port, Backlog: m.Backlog,
		IPv6Only: m.IPv6Only, ReusePort: o.reusePort, Mode: m.Mode, ReadableAll: m.ReadableAll, WritableAll: m.WritableAll})
}
