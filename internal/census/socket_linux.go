package census

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Socket is a socket that workers accept connections or receive datagrams from. It
// is made by [Look]; the zero value is none.
type Socket struct {
	fd     int // borrowed
	ino    uint64
	dev    uint64 // of the file system of sockets
	family int
	kind   int            // SOCK_STREAM, ...
	local  netip.AddrPort // TCP only; an IPv6 socket keeps the mapped form of IPv4
	device uint32         // TCP only: the interface it is bound to, or 0
}

// Look finds out what socket a descriptor of ours is. It borrows the descriptor,
// which must stay open for as long as the Socket is used.
//
// TCP (of both families), UDP and Unix sockets of every type are known. Errors:
// EBADF; ENOTSOCK; EPROTONOSUPPORT for any other socket; what getsockopt(2) and
// getsockname(2) give.
func Look(fd int) (Socket, error) {
	s, err := look(fd)
	if err != nil {
		return Socket{}, fmt.Errorf("cannot look at descriptor %d: %w", fd, err)
	}
	return s, nil
}

func look(fd int) (Socket, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return Socket{}, err
	}
	s := Socket{fd: fd, ino: st.Ino, dev: uint64(st.Dev)}
	var protocol int
	for option, value := range map[int]*int{unix.SO_DOMAIN: &s.family, unix.SO_TYPE: &s.kind, unix.SO_PROTOCOL: &protocol} {
		var err error
		if *value, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, option); err != nil {
			return Socket{}, err
		}
	}
	switch {
	case s.family == unix.AF_UNIX:
	case s.family != unix.AF_INET && s.family != unix.AF_INET6:
		return Socket{}, unix.EPROTONOSUPPORT
	case s.kind == unix.SOCK_DGRAM && protocol == unix.IPPROTO_UDP:
	// An accepted MPTCP connection has TCP connections with the same inode.
	case s.kind == unix.SOCK_STREAM && (protocol == unix.IPPROTO_TCP || protocol == unix.IPPROTO_MPTCP):
		return s.withAddress()
	default:
		return Socket{}, unix.EPROTONOSUPPORT
	}
	return s, nil
}

func (s Socket) withAddress() (Socket, error) {
	name, err := unix.Getsockname(s.fd)
	if err != nil {
		return Socket{}, err
	}
	switch name := name.(type) {
	case *unix.SockaddrInet4:
		s.local = netip.AddrPortFrom(netip.AddrFrom4(name.Addr), uint16(name.Port))
	case *unix.SockaddrInet6:
		s.local = netip.AddrPortFrom(netip.AddrFrom16(name.Addr), uint16(name.Port))
	}
	// Linux before 5.1 does not know the option: such a socket takes any interface.
	if device, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX); err == nil {
		s.device = uint32(device)
	}
	return s, nil
}

// Queue returns how many connections wait to be accepted; 0 for a socket that does
// not listen (yet, or any more) and for datagrams. It does not block. The descriptor
// must still be open. Errors: of getsockopt(2) for TCP; for Unix sockets ErrElsewhere,
// and those of sock_diag(7), as for [Connections].
func (s Socket) Queue() (int, error) {
	switch {
	case s.isUnix():
		d, err := openDiag()
		if err != nil {
			return 0, err
		}
		defer d.close()
		var found unixFound
		if err = d.near(s.fd); err == nil {
			found, err = d.unixSocket(s.ino)
		}
		if err != nil {
			return 0, fmt.Errorf("cannot look at the queue of descriptor %d: %w%s", s.fd, err, lacking(err, "CONFIG_UNIX_DIAG"))
		}
		return found.queue, nil
	case s.isTCP():
		// tcp_get_info: in a listening socket, unacked is the length of the queue.
		info, err := unix.GetsockoptTCPInfo(s.fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			return 0, fmt.Errorf("cannot look at the queue of descriptor %d: %w", s.fd, err)
		}
		if info.State == tcpListen {
			return int(info.Unacked), nil
		}
	}
	return 0, nil
}

func (s Socket) isTCP() bool { return s.local.IsValid() }

// isUnix says whether it is a Unix socket that has connections.
func (s Socket) isUnix() bool { return s.family == unix.AF_UNIX && s.kind != unix.SOCK_DGRAM }
