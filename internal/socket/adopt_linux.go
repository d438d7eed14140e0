package socket

import (
	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
	"github.com/f72e338e/supervisord/internal/proto"
)

// tcpListen is TCP_LISTEN of the kernel's enum (include/net/tcp_states.h), which
// x/sys does not have.
const tcpListen = 10

// Adopt borrows an inherited socket and checks that it can serve as spec: kind,
// address family and, when spec names an address or a port, that too. It listens
// when nobody does yet; a socket that listens keeps its backlog. No option is
// changed, O_NONBLOCK neither: systemd passes blocking sockets unless
// NonBlocking=yes, and workers of Node need them non-blocking.
//
// It does not block. Errors: *Error around EINVAL (does not fit; the hint says
// what it is), EDESTADDRREQ (not bound), ENOTSOCK, EBADF, or what listen(2) gave.
func Adopt(f *fdpass.File, spec proto.SocketSpec) (proto.Bound, error) {
	const op = "use the inherited socket for"
	fd := f.Fd()
	if fd < 0 {
		return proto.Bound{}, fail(spec, op, unix.EBADF, "")
	}
	network, address, port, err := Address(fd)
	if err != nil {
		return proto.Bound{}, fail(spec, op, err, "")
	}
	is := "it is " + network + " " + address
	switch {
	case !sameNetwork(fd, network, spec.Network):
		return proto.Bound{}, fail(spec, op, unix.EINVAL, is)
	case proto.IsUnix(network) && address == "", !proto.IsUnix(network) && port == 0:
		return proto.Bound{}, fail(spec, op, unix.EDESTADDRREQ, "it is not bound")
	case (spec.Address != "" || spec.Port != 0) && !Matches(fd, spec):
		return proto.Bound{}, fail(spec, op, unix.EINVAL, is)
	}
	listened := false
	if !proto.IsDatagram(network) && !Listening(fd) {
		if err := unix.Listen(fd, backlog(spec)); err != nil {
			return proto.Bound{}, failAt(spec, "listen on", address, err, "")
		}
		listened = true
	}
	b, err := describe(fd, spec, address)
	if err != nil {
		return proto.Bound{}, err
	}
	if proto.IsUnix(network) && !listened {
		b.Backlog = 0 // the kernel tells it to nobody but sock_diag(7)
	}
	b.Inherited = true
	return b, nil
}

// Listening reports whether the borrowed socket accepts connections
// (SO_ACCEPTCONN, socket(7)). It is false after a shutdown(2) by any holder.
func Listening(fd int) bool {
	on, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	return err == nil && on == 1
}

// Relisten calls listen(2) on the borrowed socket again and returns the backlog
// now in force. It puts the first backlog back after a holder changed it for all,
// and revives a TCP listener after a shutdown(2), if its port was bound by number
// (traps.md 3). backlog 0 means proto.DefaultBacklog. Errors: the errno of
// listen(2); EINVAL for a Unix listener that was shut down, which stays dead.
func Relisten(fd, wish int) (int, error) {
	wish = backlog(proto.SocketSpec{Backlog: wish})
	if err := unix.Listen(fd, wish); err != nil {
		return 0, err
	}
	if _, limit, err := Queue(fd); err == nil {
		return limit, nil
	}
	return capped(wish), nil
}

// Queue returns how many connections wait in the accept queue of the borrowed
// listening TCP socket, and how many may. The kernel uses two fields of TCP_INFO
// for it (tcp_get_info in net/ipv4/tcp.c: tcpi_unacked, tcpi_sacked). It is free
// of side effects. Errors: ErrUnknown when the socket is no TCP listener; EBADF.
func Queue(fd int) (length, limit int, err error) {
	if domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN); err != nil {
		return 0, 0, err
	} else if domain == unix.AF_UNIX {
		return 0, 0, ErrUnknown
	}
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil || info.State != tcpListen {
		return 0, 0, ErrUnknown
	}
	return int(info.Unacked), int(info.Sacked), nil
}

// describe fills Bound from the socket itself, not from the wish.
func describe(fd int, spec proto.SocketSpec, tried string) (proto.Bound, error) {
	_, address, port, err := Address(fd)
	if err != nil {
		return proto.Bound{}, failAt(spec, "read the address of", tried, err, "")
	}
	b := proto.Bound{Address: address, Port: port}
	if proto.IsDatagram(spec.Network) {
		return b, nil
	}
	if _, limit, err := Queue(fd); err == nil {
		b.Backlog = limit
	} else {
		b.Backlog = capped(backlog(spec))
	}
	return b, nil
}
