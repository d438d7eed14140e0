package socket

import (
	"errors"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
	"github.com/f72e338e/supervisord/internal/proto"
)

// noLeaks fails the test when it ends with other descriptors than it began with.
func noLeaks(t *testing.T) {
	t.Helper()
	before := openFiles(t)
	t.Cleanup(func() {
		after := openFiles(t)
		for fd, target := range after {
			if before[fd] != target && !strings.HasPrefix(target, "anon_inode:") {
				t.Errorf("left open: fd %s %s", fd, target)
			}
		}
	})
}

func openFiles(t *testing.T) map[string]string {
	t.Helper()
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	files := make(map[string]string)
	for _, n := range names {
		if target, err := os.Readlink("/proc/self/fd/" + n.Name()); err == nil {
			files[n.Name()] = target
		}
	}
	return files
}

func mustBind(t *testing.T, spec proto.SocketSpec) (*fdpass.File, proto.Bound) {
	t.Helper()
	f, b, err := Bind(spec)
	if err != nil {
		t.Fatalf("Bind(%+v): %v", spec, err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f, b
}

func get(t *testing.T, f *fdpass.File, level, option int) int {
	t.Helper()
	v, err := unix.GetsockoptInt(f.Fd(), level, option)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestBindAddresses(t *testing.T) {
	noLeaks(t)
	for _, c := range []struct {
		spec   proto.SocketSpec
		host   string
		v6only int // -1: not asked
	}{
		{proto.SocketSpec{Network: "tcp"}, "::", 0},
		{proto.SocketSpec{Network: "tcp", IPv6Only: true}, "::", 1},
		{proto.SocketSpec{Network: "tcp", Address: "::"}, "::", 0},
		{proto.SocketSpec{Network: "tcp6"}, "::", 1},
		{proto.SocketSpec{Network: "tcp4"}, "0.0.0.0", -1},
		{proto.SocketSpec{Network: "tcp", Address: "0.0.0.0"}, "0.0.0.0", -1},
		{proto.SocketSpec{Network: "tcp", Address: "127.0.0.1"}, "127.0.0.1", -1},
		{proto.SocketSpec{Network: "tcp", Address: "::1"}, "::1", -1},
		{proto.SocketSpec{Network: "udp"}, "::", 0},
		{proto.SocketSpec{Network: "udp4"}, "0.0.0.0", -1},
	} {
		f, b := mustBind(t, c.spec)
		host, port, err := net.SplitHostPort(b.Address)
		if err != nil || host != c.host || port != strconv.Itoa(b.Port) || b.Port == 0 {
			t.Errorf("%+v: bound to %+v (%v)", c.spec, b, err)
		}
		if c.v6only >= 0 && get(t, f, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY) != c.v6only {
			t.Errorf("%+v: IPV6_V6ONLY is not %d", c.spec, c.v6only)
		}
		fl, _ := unix.FcntlInt(uintptr(f.Fd()), unix.F_GETFL, 0)
		fdfl, _ := unix.FcntlInt(uintptr(f.Fd()), unix.F_GETFD, 0)
		if fl&unix.O_NONBLOCK == 0 || fdfl&unix.FD_CLOEXEC == 0 {
			t.Errorf("%+v: flags %x, %x", c.spec, fl, fdfl)
		}
		datagram := proto.IsDatagram(c.spec.Network)
		if get(t, f, unix.SOL_SOCKET, unix.SO_REUSEADDR) == flag(datagram) {
			t.Errorf("%+v: SO_REUSEADDR is wrong", c.spec)
		}
		if Listening(f.Fd()) == datagram {
			t.Errorf("%+v: listening is wrong", c.spec)
		}
		spec := c.spec
		spec.Port = b.Port
		if !Matches(f.Fd(), spec) {
			t.Errorf("%+v does not match itself", spec)
		}
		spec.Port++
		if Matches(f.Fd(), spec) {
			t.Errorf("%+v matches port %d", spec, b.Port)
		}
	}
}

func TestBindErrors(t *testing.T) {
	noLeaks(t)
	_, b := mustBind(t, proto.SocketSpec{Network: "tcp", Address: "127.0.0.1"})
	port := strconv.Itoa(b.Port)
	for _, c := range []struct {
		spec proto.SocketSpec
		want error
		text string
	}{
		{proto.SocketSpec{Network: "tcp", Address: "127.0.0.1", Port: b.Port}, syscall.EADDRINUSE,
			"cannot bind tcp 127.0.0.1:" + port + ": address already in use"},
		// A port in use does not lead to the fallback: the address is still [::].
		{proto.SocketSpec{Network: "tcp", Port: b.Port}, syscall.EADDRINUSE,
			"cannot bind tcp [::]:" + port + ": address already in use"},
		{proto.SocketSpec{Network: "tcp", Address: "192.0.2.1", Port: 80}, syscall.EADDRNOTAVAIL,
			"cannot bind tcp 192.0.2.1:80: cannot assign requested address (no interface has this address; free_bind binds it all the same)"},
		{proto.SocketSpec{Network: "tcp", Address: "localhost"}, syscall.EINVAL,
			"cannot bind tcp localhost:0: invalid argument (not an IP address)"},
		{proto.SocketSpec{Network: "tcp6", Address: "127.0.0.1"}, syscall.EAFNOSUPPORT,
			"cannot bind tcp6 127.0.0.1:0: address family not supported by protocol (an IPv4 address on tcp6)"},
		{proto.SocketSpec{Network: "tcp", Port: 65536}, syscall.EINVAL,
			"cannot bind tcp *:65536: invalid argument (a port is 0 to 65535)"},
		{proto.SocketSpec{Network: "sctp"}, syscall.EPROTONOSUPPORT, "cannot bind sctp *:0: protocol not supported"},
	} {
		f, _, err := Bind(c.spec)
		if f != nil || !errors.Is(err, c.want) || err.Error() != c.text {
			t.Errorf("%+v:\n got %v\nwant %s", c.spec, err, c.text)
		}
		var e *Error
		if !errors.As(err, &e) {
			t.Errorf("%+v: not an *Error", c.spec)
		}
	}
}

// What keeps [::] from being bound leads to 0.0.0.0, and the error is that of the
// fallback, as Node reports it (node-semantics.md §1.2).
func TestFallbackToIPv4(t *testing.T) {
	start, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
	if first, aerr := strconv.Atoi(strings.TrimSpace(string(start))); err != nil || aerr != nil || os.Getuid() == 0 || first <= 80 {
		t.Skip("needs an ordinary user and privileged ports")
	}
	_, _, err = Bind(proto.SocketSpec{Network: "tcp", Port: 80})
	if !errors.Is(err, syscall.EACCES) || !strings.HasPrefix(err.Error(), "cannot bind tcp 0.0.0.0:80: permission denied (grant CAP_NET_BIND_SERVICE") {
		t.Errorf("got %v", err)
	}
}

func TestPrivilegedPortNamesTheCapability(t *testing.T) {
	err := failAt(proto.SocketSpec{Network: "tcp"}, "bind", "0.0.0.0:80", syscall.EACCES, hintFor(syscall.EACCES, 80))
	want := "cannot bind tcp 0.0.0.0:80: permission denied (grant CAP_NET_BIND_SERVICE or use a port above 1023)"
	if err.Error() != want {
		t.Errorf("got %s", err)
	}
}

func TestBacklog(t *testing.T) {
	max := capped(-1)
	for _, c := range []struct{ wish, want int }{{0, min(511, max)}, {7, 7}, {max + 1, max}, {-5, max}} {
		f, b := mustBind(t, proto.SocketSpec{Network: "tcp", Address: "127.0.0.1", Backlog: c.wish})
		if b.Backlog != c.want {
			t.Errorf("backlog %d became %d, want %d", c.wish, b.Backlog, c.want)
		}
		if _, limit, err := Queue(f.Fd()); err != nil || limit != c.want {
			t.Errorf("Queue: %d, %v", limit, err)
		}
	}
}

func TestQueueAndRelisten(t *testing.T) {
	noLeaks(t)
	f, b := mustBind(t, proto.SocketSpec{Network: "tcp", Address: "127.0.0.1", Backlog: 9})
	for i := 1; i <= 3; i++ {
		c, err := net.Dial("tcp", b.Address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if n, limit, err := Queue(f.Fd()); n != i || limit != 9 || err != nil {
			t.Errorf("Queue = %d, %d, %v; want %d, 9", n, limit, err, i)
		}
	}
	if n, err := Relisten(f.Fd(), 5); n != 5 || err != nil {
		t.Errorf("Relisten = %d, %v", n, err)
	}
	u, _ := mustBind(t, proto.SocketSpec{Network: "udp", Address: "127.0.0.1"})
	if _, _, err := Queue(u.Fd()); !errors.Is(err, ErrUnknown) {
		t.Errorf("Queue of a UDP socket: %v", err)
	}
	if _, _, err := Queue(-1); !errors.Is(err, syscall.EBADF) {
		t.Errorf("Queue of nothing: %v", err)
	}
}

func TestRelistenRevivesAfterShutdown(t *testing.T) {
	_, first := mustBind(t, proto.SocketSpec{Network: "tcp", Address: "127.0.0.1"})
	f, b := mustBind(t, proto.SocketSpec{Network: "tcp", Address: "127.0.0.2", Port: first.Port})
	if err := unix.Shutdown(f.Fd(), unix.SHUT_RDWR); err != nil {
		t.Fatal(err)
	}
	if Listening(f.Fd()) {
		t.Fatal("still listening")
	}
	if _, err := Relisten(f.Fd(), 0); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", b.Address)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
}

func TestOptions(t *testing.T) {
	on, off := true, false
	f, b := mustBind(t, proto.SocketSpec{Network: "tcp", Address: "127.0.0.1", ReusePort: true, FastOpen: 16, NoDelay: &on,
		KeepAlive: &on, DeferAcceptSeconds: 3, ReceiveBuffer: 8192, SendBuffer: 8192})
	if get(t, f, unix.SOL_SOCKET, unix.SO_REUSEPORT) != 1 || get(t, f, unix.IPPROTO_TCP, unix.TCP_NODELAY) != 1 ||
		get(t, f, unix.SOL_SOCKET, unix.SO_KEEPALIVE) != 1 || get(t, f, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT) < 3 ||
		get(t, f, unix.IPPROTO_TCP, unix.TCP_FASTOPEN) != 16 || get(t, f, unix.SOL_SOCKET, unix.SO_RCVBUF) != 16384 {
		t.Error("an option was not set")
	}
	mustBind(t, proto.SocketSpec{Network: "tcp", Address: "127.0.0.1", Port: b.Port, ReusePort: true})
	g, _ := mustBind(t, proto.SocketSpec{Network: "tcp", Address: "127.0.0.1", KeepAlive: &off})
	if get(t, g, unix.SOL_SOCKET, unix.SO_KEEPALIVE) != 0 {
		t.Error("SO_KEEPALIVE is set")
	}
	mustBind(t, proto.SocketSpec{Network: "tcp", Address: "192.0.2.1", FreeBind: true})
	mustBind(t, proto.SocketSpec{Network: "tcp", Address: "2001:db8::1", FreeBind: true})
}

func TestAdopt(t *testing.T) {
	noLeaks(t)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := fdpass.NewFile(fd)
	defer f.Close()
	if _, err := Adopt(f, proto.SocketSpec{Network: "tcp"}); !errors.Is(err, syscall.EDESTADDRREQ) {
		t.Errorf("unbound: %v", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	b, err := Adopt(f, proto.SocketSpec{Network: "tcp", Backlog: 33})
	if err != nil || b.Backlog != 33 || !b.Inherited || !Listening(fd) {
		t.Fatalf("Adopt: %+v, %v", b, err)
	}
	if fl, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); fl&unix.O_NONBLOCK != 0 {
		t.Error("Adopt changed O_NONBLOCK")
	}
	if b, err = Adopt(f, proto.SocketSpec{Network: "tcp4", Backlog: 44}); err != nil || b.Backlog != 33 {
		t.Errorf("second Adopt: %+v, %v", b, err)
	}
	for _, spec := range []proto.SocketSpec{{Network: "udp"}, {Network: "tcp6"}, {Network: "unix"},
		{Network: "tcp", Port: b.Port + 1}, {Network: "tcp", Address: "127.0.0.2", Port: b.Port}} {
		_, err := Adopt(f, spec)
		if !errors.Is(err, syscall.EINVAL) || !strings.Contains(err.Error(), "it is tcp "+b.Address) {
			t.Errorf("%+v: %v", spec, err)
		}
	}
	g := fdpass.NewFile(-1)
	if _, err := Adopt(g, proto.SocketSpec{Network: "tcp"}); !errors.Is(err, syscall.EBADF) {
		t.Errorf("closed file: %v", err)
	}
}
