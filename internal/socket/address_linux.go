package socket

import (
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/internal/proto"
)

// Address tells what the borrowed socket is bound to (getsockname(2)): the
// network by Go's name without a family ("tcp", "udp", "unix", "unixpacket",
// "unixgram"), the address as Bound has it ("127.0.0.1:8080", "[::]:80",
// "/run/a.sock", "@name", "" for an unbound Unix socket) and the port, 0 for
// Unix. Errors: EBADF, ENOTSOCK, EPROTONOSUPPORT for another kind of socket.
func Address(fd int) (network, address string, port int, err error) {
	network, err = networkOf(fd)
	if err != nil {
		return "", "", 0, err
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return "", "", 0, err
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return network, netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port)).String(), sa.Port, nil
	case *unix.SockaddrInet6:
		a := netip.AddrFrom16(sa.Addr)
		if sa.ZoneId != 0 {
			a = a.WithZone(zoneName(sa.ZoneId))
		}
		return network, netip.AddrPortFrom(a, uint16(sa.Port)).String(), sa.Port, nil
	case *unix.SockaddrUnix:
		return network, sa.Name, 0, nil
	}
	return "", "", 0, unix.EPROTONOSUPPORT
}

// Matches reports whether the borrowed socket is the one that spec's address
// asks for: same kind, same path or port, and an address that means the same. A
// wildcard matches only a wildcard of the same reach; a port 0 matches nothing.
func Matches(fd int, spec proto.SocketSpec) bool {
	network, address, port, err := Address(fd)
	if err != nil || !sameNetwork(fd, network, spec.Network) {
		return false
	}
	if proto.IsUnix(spec.Network) {
		if strings.HasPrefix(spec.Address, "@") || strings.HasPrefix(address, "@") {
			return address == spec.Address
		}
		return address != "" && absolute(address) == absolute(spec.Address)
	}
	if port == 0 || port != spec.Port {
		return false
	}
	have := netip.MustParseAddrPort(address).Addr()
	if have == netip.IPv6Unspecified() {
		only, err := unix.GetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
		if err != nil || (only == 1) != (spec.IPv6Only || strings.HasSuffix(spec.Network, "6")) {
			return false
		}
	}
	if spec.Address == "" {
		return have.IsUnspecified()
	}
	want, err := netip.ParseAddr(spec.Address)
	return err == nil && want.Unmap() == have.Unmap()
}

// networkOf is the socket's network without its family.
func networkOf(fd int) (string, error) {
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return "", err
	}
	typ, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return "", err
	}
	protocol, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	if err != nil {
		return "", err
	}
	switch domain {
	case unix.AF_UNIX:
		for name, t := range unixTypes {
			if t == typ {
				return name, nil
			}
		}
	case unix.AF_INET, unix.AF_INET6:
		switch {
		case typ == unix.SOCK_STREAM && (protocol == unix.IPPROTO_TCP || protocol == unix.IPPROTO_MPTCP):
			return "tcp", nil
		case typ == unix.SOCK_DGRAM && protocol == unix.IPPROTO_UDP:
			return "udp", nil
		}
	}
	return "", unix.EPROTONOSUPPORT
}

// sameNetwork reports whether a socket of the network have can serve as want.
func sameNetwork(fd int, have, want string) bool {
	if proto.IsUnix(want) || proto.IsUnix(have) {
		return have == want
	}
	if have != strings.TrimRight(want, "46") {
		return false
	}
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	switch {
	case err != nil:
		return false
	case strings.HasSuffix(want, "4"):
		return domain == unix.AF_INET
	case strings.HasSuffix(want, "6"):
		return domain == unix.AF_INET6
	}
	return true
}

func zoneName(index uint32) string {
	if i, err := net.InterfaceByIndex(int(index)); err == nil {
		return i.Name
	}
	return strconv.Itoa(int(index))
}

func absolute(path string) string {
	if a, err := filepath.Abs(path); err == nil {
		return a
	}
	return filepath.Clean(path)
}
