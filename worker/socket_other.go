//go:build !linux

package worker

import (
	"context"
	"errors"
	"net"
	"syscall"

	"github.com/f72e338e/supervisord/fdpass"
)

func fileListener(f *fdpass.File) (net.Listener, error) {
	_ = f.Close()
	return nil, fdpass.ErrNotSupported
}

func filePacketConn(f *fdpass.File) (net.PacketConn, error) {
	_ = f.Close()
	return nil, fdpass.ErrNotSupported
}

// dupConn needs more than the net package has on every system.
func dupConn(syscall.Conn) (*fdpass.File, error) { return nil, errors.ErrUnsupported }

// readable is not known here: a server that drains closes at once.
func readable(uintptr) bool { return false }

// dup needs more than the net package has on every system.
func (l *listener) dup() (net.Listener, error) { return nil, errors.ErrUnsupported }

// adopt needs more than the net package has on every system.
func adopt(uintptr, int) (net.Listener, error) { return nil, errors.ErrUnsupported }

// listenAlone leaves everything to the net package: of the options only
// IPv6Only is known here.
func (w *Worker) listenAlone(ctx context.Context, network, address string, o listenOptions) (net.Listener, error) {
	if o.reusePort {
		return nil, errors.ErrUnsupported
	}
	if o.ipv6Only && network == "tcp" {
		network = "tcp6"
	}
	inner, err := new(net.ListenConfig).Listen(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return newListener(w, inner, func() {})
}

func listenPacketAlone(ctx context.Context, network, address string, o listenOptions) (net.PacketConn, error) {
	if o.ipv6Only && network == "udp" {
		network = "udp6"
	}
	pc, err := new(net.ListenConfig).ListenPacket(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return packet(pc, func() {}), nil
}
