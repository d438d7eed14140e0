package worker

import (
	"context"
	"net"
	"os"

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
		IPv6Only: m.IPv6Only, Mode: m.Mode, ReadableAll: m.ReadableAll, WritableAll: m.WritableAll})
}
