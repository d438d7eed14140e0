package socket

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/internal/proto"
)

// option is one setsockopt(2) call with its name for the error.
type option struct {
	name         string
	level, which int
	value        int
}

// setOptions sets everything before bind(2): the receive buffer must be known
// before listen(2) to scale the window (tcp(7)), and accepted sockets inherit
// the rest from the listener on Linux. On an error it returns the option's name.
func setOptions(fd int, spec proto.SocketSpec, p place) (string, error) {
	return apply(fd, inetOptions(spec, p))
}

func apply(fd int, options []option) (string, error) {
	for _, o := range options {
		if err := unix.SetsockoptInt(fd, o.level, o.which, o.value); err != nil {
			return o.name, err
		}
	}
	return "", nil
}

func inetOptions(spec proto.SocketSpec, p place) []option {
	var o []option
	add := func(name string, level, which, value int) { o = append(o, option{name, level, which, value}) }
	tcp := strings.HasPrefix(spec.Network, "tcp")
	if tcp {
		// On a datagram socket SO_REUSEADDR would let a second process bind the
		// same port and steal its packets.
		add("SO_REUSEADDR", unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}
	if p.domain == unix.AF_INET6 {
		// Always explicit: the default is a sysctl (net.ipv6.bindv6only).
		add("IPV6_V6ONLY", unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, flag(p.v6only))
	}
	if spec.ReusePort {
		add("SO_REUSEPORT", unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	}
	if spec.FreeBind {
		if p.domain == unix.AF_INET6 {
			add("IPV6_FREEBIND", unix.IPPROTO_IPV6, unix.IPV6_FREEBIND, 1)
		} else {
			add("IP_FREEBIND", unix.IPPROTO_IP, unix.IP_FREEBIND, 1)
		}
	}
	o = append(o, bufferOptions(spec)...)
	if !tcp {
		return o
	}
	if spec.FastOpen > 0 {
		add("TCP_FASTOPEN", unix.IPPROTO_TCP, unix.TCP_FASTOPEN, spec.FastOpen)
	}
	if spec.NoDelay != nil {
		add("TCP_NODELAY", unix.IPPROTO_TCP, unix.TCP_NODELAY, flag(*spec.NoDelay))
	}
	if spec.KeepAlive != nil {
		add("SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, flag(*spec.KeepAlive))
	}
	if spec.DeferAcceptSeconds > 0 {
		add("TCP_DEFER_ACCEPT", unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, spec.DeferAcceptSeconds)
	}
	return o
}

// keepAliveSeconds is the default of Go's net package, idle and between probes.
const keepAliveSeconds = 15

// Tune gives a listening TCP socket what Go's net package gives each connection
// that it accepts, TCP_NODELAY and keep-alive probes, unless spec says otherwise:
// connections inherit it (tcp(7)), and nobody has to set it on each of them. With
// on false it takes back what spec does not ask for. Errors: those of
// setsockopt(2).
func Tune(fd int, spec proto.SocketSpec, on bool) error {
	noDelay, keepAlive := on, on
	if spec.NoDelay != nil {
		noDelay = *spec.NoDelay
	}
	if spec.KeepAlive != nil {
		keepAlive = *spec.KeepAlive
	}
	o := []option{
		{"TCP_NODELAY", unix.IPPROTO_TCP, unix.TCP_NODELAY, flag(noDelay)},
		{"SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, flag(keepAlive)},
	}
	if on {
		o = append(o, option{"TCP_KEEPIDLE", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, keepAliveSeconds},
			option{"TCP_KEEPINTVL", unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, keepAliveSeconds})
	}
	if name, err := apply(fd, o); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

func bufferOptions(spec proto.SocketSpec) []option {
	var o []option
	if spec.ReceiveBuffer > 0 {
		o = append(o, option{"SO_RCVBUF", unix.SOL_SOCKET, unix.SO_RCVBUF, spec.ReceiveBuffer})
	}
	if spec.SendBuffer > 0 {
		o = append(o, option{"SO_SNDBUF", unix.SOL_SOCKET, unix.SO_SNDBUF, spec.SendBuffer})
	}
	return o
}

func flag(b bool) int {
	if b {
		return 1
	}
	return 0
}

// capped is the backlog that listen(2) makes of a wish: at most
// net.core.somaxconn. Where that cannot be read (no /proc) the wish stands.
func capped(wish int) int {
	text, err := os.ReadFile("/proc/sys/net/core/somaxconn")
	if err != nil {
		return wish
	}
	limit, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return wish
	}
	if wish < 0 || wish > limit {
		return limit
	}
	return wish
}
