package socket

import (
	"errors"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
	"github.com/f72e338e/supervisord/internal/proto"
)

// Bind makes the socket that spec asks for, binds it and, unless it is a
// datagram socket, listens on it. The caller owns the file. spec.Inherit is not
// looked at: see Adopt.
//
// The address must be an IP literal (with a zone, if any) or "": every address,
// which is a dual-stack [::] as in Node, or 0.0.0.0 where that cannot be had.
// Options that do not exist for the network are ignored; the configuration
// refuses them earlier, with a line number.
//
// TCP does not block. A Unix path may wait up to a second for the lock of its
// directory, and as long as the file system takes.
//
// Errors: *Error around the errno of the failing step; EINVAL for an address
// that is none, EADDRINUSE for a path that is in use or no stale socket, EACCES
// for a path that leaves its Confine.
func Bind(spec proto.SocketSpec) (*fdpass.File, proto.Bound, error) {
	if !proto.KnownNetwork(spec.Network) {
		return nil, proto.Bound{}, fail(spec, "bind", unix.EPROTONOSUPPORT, "")
	}
	if proto.IsUnix(spec.Network) {
		return bindUnix(spec)
	}
	if spec.Port < 0 || spec.Port > 65535 {
		return nil, proto.Bound{}, fail(spec, "bind", unix.EINVAL, "a port is 0 to 65535")
	}
	places, err := candidates(spec)
	if err != nil {
		return nil, proto.Bound{}, err
	}
	for i, p := range places {
		fd, err := bindInet(spec, p)
		if err != nil {
			// As Node: whatever keeps [::] from being bound leads to 0.0.0.0, but
			// a port in use is in use (node-semantics.md §1.2).
			if i+1 < len(places) && !errors.Is(err, unix.EADDRINUSE) {
				continue
			}
			return nil, proto.Bound{}, err
		}
		b, err := describe(fd, spec, p.String())
		if err != nil {
			_ = unix.Close(fd)
			return nil, proto.Bound{}, err
		}
		return fdpass.NewFile(fd), b, nil
	}
	return nil, proto.Bound{}, fail(spec, "bind", unix.EADDRNOTAVAIL, "")
}

// place is one address to try.
type place struct {
	domain int
	v6only bool
	addr   netip.Addr
	zone   uint32
	port   int
}

func (p place) String() string { return netip.AddrPortFrom(p.addr, uint16(p.port)).String() }

func (p place) sockaddr() unix.Sockaddr {
	if p.domain == unix.AF_INET {
		return &unix.SockaddrInet4{Port: p.port, Addr: p.addr.As4()}
	}
	return &unix.SockaddrInet6{Port: p.port, Addr: p.addr.As16(), ZoneId: p.zone}
}

// candidates lists what to try, in order; more than one only for a dual-stack
// wildcard.
func candidates(spec proto.SocketSpec) ([]place, error) {
	only6 := spec.IPv6Only || strings.HasSuffix(spec.Network, "6")
	v6 := place{domain: unix.AF_INET6, v6only: only6, addr: netip.IPv6Unspecified(), port: spec.Port}
	v4 := place{domain: unix.AF_INET, addr: netip.IPv4Unspecified(), port: spec.Port}
	if spec.Address == "" {
		switch {
		case strings.HasSuffix(spec.Network, "4"):
			return []place{v4}, nil
		case only6:
			return []place{v6}, nil
		}
		return []place{v6, v4}, nil
	}
	a, err := netip.ParseAddr(spec.Address)
	if err != nil {
		return nil, fail(spec, "bind", unix.EINVAL, "not an IP address")
	}
	if a.Is4() {
		if strings.HasSuffix(spec.Network, "6") {
			return nil, fail(spec, "bind", unix.EAFNOSUPPORT, "an IPv4 address on "+spec.Network)
		}
		v4.addr = a
		return []place{v4}, nil
	}
	if strings.HasSuffix(spec.Network, "4") {
		return nil, fail(spec, "bind", unix.EAFNOSUPPORT, "an IPv6 address on "+spec.Network)
	}
	v6.addr = a
	if z := a.Zone(); z != "" {
		if v6.zone, err = zoneIndex(z); err != nil {
			return nil, fail(spec, "bind", unix.ENODEV, "no interface is named "+z)
		}
	}
	return []place{v6}, nil
}

func zoneIndex(zone string) (uint32, error) {
	if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return uint32(n), nil
	}
	i, err := net.InterfaceByName(zone)
	if err != nil {
		return 0, err
	}
	return uint32(i.Index), nil
}

func bindInet(spec proto.SocketSpec, p place) (fd int, err error) {
	typ := unix.SOCK_STREAM
	if proto.IsDatagram(spec.Network) {
		typ = unix.SOCK_DGRAM
	}
	fd, err = unix.Socket(p.domain, typ|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		hint := ""
		if errors.Is(err, unix.EAFNOSUPPORT) && p.domain == unix.AF_INET6 {
			hint = "this system has no IPv6"
		}
		return -1, failAt(spec, "make a socket for", p.String(), err, hint)
	}
	defer func() {
		if err != nil {
			_ = unix.Close(fd)
			fd = -1
		}
	}()
	if name, err := setOptions(fd, spec, p); err != nil {
		return fd, failAt(spec, "set "+name+" on", p.String(), err, "")
	}
	if err := unix.Bind(fd, p.sockaddr()); err != nil {
		return fd, failAt(spec, "bind", p.String(), err, hintFor(err, p.port))
	}
	if typ == unix.SOCK_STREAM {
		if err := unix.Listen(fd, backlog(spec)); err != nil {
			return fd, failAt(spec, "listen on", p.String(), err, hintFor(err, p.port))
		}
	}
	return fd, nil
}

// backlog is the wish as it is given to listen(2). A negative one is unlimited
// there, that is, somaxconn.
func backlog(spec proto.SocketSpec) int {
	if spec.Backlog == 0 {
		return proto.DefaultBacklog
	}
	return spec.Backlog
}

func hintFor(err error, port int) string {
	switch {
	case errors.Is(err, unix.EACCES) && port > 0 && port < 1024:
		return "grant CAP_NET_BIND_SERVICE or use a port above 1023"
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return "no interface has this address; free_bind binds it all the same"
	}
	return ""
}

func fail(spec proto.SocketSpec, op string, err error, hint string) *Error {
	address := spec.Address
	if !proto.IsUnix(spec.Network) {
		address = proto.HostPort(address, spec.Port)
	}
	return failAt(spec, op, address, err, hint)
}

func failAt(spec proto.SocketSpec, op, address string, err error, hint string) *Error {
	return &Error{Op: op, Network: spec.Network, Address: address, Err: err, Hint: hint}
}
