package socket

import (
	"errors"
	"fmt"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/internal/proto"
)

// ErrDead means a Unix socket that was shut down: listen(2) on it succeeds and
// changes nothing, so only a new one can take its place.
var ErrDead = errors.New("a Unix socket that was shut down stays so")

// Damage is one thing that a holder of a socket did to all who hold it.
type Damage struct {
	Shut     bool   // nobody can connect
	Blocking bool   // who calls accept(2) waits in it; some may do so now
	What     string // for people: "made blocking"
}

// Examine looks at the borrowed socket for what a holder can do to the others and
// the kernel tells: shutdown(2), another backlog by listen(2), another port (both
// in a row, of a port that the kernel chose), O_NONBLOCK cleared, O_ASYNC set. b is
// how it was. Some system calls, without side effects; nil is the answer as a rule.
//
// The backlog of a Unix socket is not told.
func Examine(fd int, network string, b proto.Bound) []Damage {
	var list []Damage
	if !proto.IsDatagram(network) {
		switch _, limit, err := Queue(fd); {
		case isShut(fd):
			list = append(list, Damage{Shut: true, What: "shut down"})
		case movedTo(fd, b) != 0:
			list = append(list, Damage{Shut: true, What: fmt.Sprintf("moved to port %d", movedTo(fd, b))})
		case err == nil && b.Backlog != 0 && limit != b.Backlog:
			list = append(list, Damage{What: fmt.Sprintf("backlog changed from %d to %d", b.Backlog, limit)})
		}
	}
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err == nil && flags&unix.O_NONBLOCK == 0 && !b.Blocking {
		list = append(list, Damage{Blocking: true, What: "made blocking"})
	}
	if err == nil && flags&unix.O_ASYNC != 0 {
		list = append(list, Damage{What: "made to send signals"})
	}
	return list
}

// Mend puts everything back that Examine finds, on the borrowed socket itself, so
// for all who hold it; what is right stays. revived says that it was shut down and
// listens again: a socket of a SO_REUSEPORT group has left that and joined at its
// end.
//
// It returns b with the backlog now in force, another one only where
// net.core.somaxconn has become less. It does not block. Errors: ErrDead;
// EADDRINUSE when somebody took the port meanwhile; what listen(2) gives for a socket
// that a holder did more to (EINVAL after TCP_ULP).
func Mend(fd int, network string, b proto.Bound) (now proto.Bound, revived bool, err error) {
	defer func() {
		if e := restoreFlags(fd, b); err == nil {
			err = e
		}
	}()
	switch {
	case proto.IsDatagram(network):
		return b, false, nil
	case proto.IsUnix(network) && isShut(fd):
		return b, false, ErrDead
	case proto.IsUnix(network):
		return b, false, nil
	}
	if movedTo(fd, b) != 0 { // which gives the port free that it has now
		_ = unix.Shutdown(fd, unix.SHUT_RD)
	}
	if revived = isShut(fd); revived {
		if err := disconnect(fd); err != nil {
			return b, false, err
		}
		// listen(2) binds a socket without a port to any. EINVAL: it has its own still,
		// because that was asked for by number.
		if err := rebind(fd, b); err != nil && !errors.Is(err, unix.EINVAL) {
			return b, false, err
		}
	}
	if _, limit, err := Queue(fd); revived || err == nil && limit != b.Backlog {
		n, err := Relisten(fd, b.Backlog)
		if err != nil {
			return b, false, err
		}
		b.Backlog = n
	}
	return b, revived, nil
}

// isShut reports whether nobody can connect to a stream socket. After SHUT_RD a
// Unix socket still says that it listens (SO_ACCEPTCONN), and polls RDHUP only.
func isShut(fd int) bool {
	if !Listening(fd) {
		return true
	}
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	n, err := unix.Poll(p, 0)
	return err == nil && n == 1
}

// movedTo returns the port that a TCP socket has in place of its own, or 0.
func movedTo(fd int, b proto.Bound) int {
	if b.Port == 0 {
		return 0
	}
	if _, _, port, err := Address(fd); err == nil && port != b.Port && Listening(fd) {
		return port
	}
	return 0
}

// disconnect makes a TCP socket that does not listen as good as new. It may be
// connected elsewhere; and a shutdown(2) of one that was shut down already leaves a
// mark that listen(2) does not take away, nobody sees, and every accepted socket
// inherits, which then reads an end at once. connect(2), AF_UNSPEC.
func disconnect(fd int) error {
	var none unix.RawSockaddr // AF_UNSPEC is 0
	if _, _, errno := unix.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&none)), unsafe.Sizeof(none)); errno != 0 {
		return errno
	}
	return nil
}

// rebind binds a TCP socket to the address that it had.
func rebind(fd int, b proto.Bound) error {
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return err
	}
	at, err := netip.ParseAddrPort(b.Address)
	if err != nil {
		return unix.EINVAL
	}
	p := place{domain: domain, addr: at.Addr(), port: b.Port}
	if z := at.Addr().Zone(); z != "" {
		if p.zone, err = zoneIndex(z); err != nil {
			return unix.ENODEV
		}
	}
	return unix.Bind(fd, p.sockaddr())
}

// restoreFlags undoes what fcntl(2) did to an open file that others hold too.
func restoreFlags(fd int, b proto.Bound) error {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return err
	}
	want := flags &^ unix.O_ASYNC
	if !b.Blocking {
		want |= unix.O_NONBLOCK
	}
	if want != flags {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_SETFL, want)
	}
	return err
}
