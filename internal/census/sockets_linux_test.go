package census

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/internal/testkit"
)

// open is a listening socket of a test, or one of datagrams.
type open struct {
	t       testing.TB
	fd      int
	network string // of net.Dial
	address string
	Socket
}

// plan says what socket to make.
type plan struct {
	network   string // "tcp4", "tcp6", "dual", "udp4", "unix", "unixpacket", "unixgram"
	address   string // "" for one that is free
	reusePort bool
	device    int // index of the interface to bind to, or 0
	protocol  int
}

var names atomic.Int32

// listen makes a blocking socket, which is closed when the test ends.
func listen(t testing.TB, p plan) *open {
	t.Helper()
	families := map[string][2]int{
		"tcp4": {unix.AF_INET, unix.SOCK_STREAM}, "tcp6": {unix.AF_INET6, unix.SOCK_STREAM}, "dual": {unix.AF_INET6, unix.SOCK_STREAM},
		"udp4": {unix.AF_INET, unix.SOCK_DGRAM}, "unix": {unix.AF_UNIX, unix.SOCK_STREAM},
		"unixpacket": {unix.AF_UNIX, unix.SOCK_SEQPACKET}, "unixgram": {unix.AF_UNIX, unix.SOCK_DGRAM},
	}
	family, kind := families[p.network][0], families[p.network][1]
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, p.protocol)
	must(t, err)
	t.Cleanup(func() { _ = unix.Close(fd) })
	o := &open{t: t, fd: fd, network: strings.TrimRight(p.network, "46")}
	if p.reusePort {
		must(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
	}
	must(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
	if p.device != 0 {
		must(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX, p.device))
	}
	must(t, unix.Bind(fd, sockaddr(t, family, p.address)))
	if kind != unix.SOCK_DGRAM {
		must(t, unix.Listen(fd, 20000))
	}
	name, err := unix.Getsockname(fd)
	must(t, err)
	switch name := name.(type) {
	case *unix.SockaddrInet4:
		o.address = net.JoinHostPort(net.IP(name.Addr[:]).String(), fmt.Sprint(name.Port))
	case *unix.SockaddrInet6:
		o.address = net.JoinHostPort(net.IP(name.Addr[:]).String(), fmt.Sprint(name.Port))
		if p.network == "dual" {
			o.network = "tcp"
		}
	case *unix.SockaddrUnix:
		o.address = name.Name
	}
	o.Socket, err = Look(fd)
	must(t, err)
	return o
}

func sockaddr(t testing.TB, family int, address string) unix.Sockaddr {
	t.Helper()
	switch {
	case family == unix.AF_UNIX && address == "":
		dir, err := os.MkdirTemp("", "census") // t.TempDir may be too long for a socket
		must(t, err)
		t.Cleanup(func() { _ = os.RemoveAll(dir) })
		return &unix.SockaddrUnix{Name: filepath.Join(dir, "s")}
	case family == unix.AF_UNIX && address == "@":
		return &unix.SockaddrUnix{Name: fmt.Sprintf("@census-%d-%d", os.Getpid(), names.Add(1))}
	case family == unix.AF_UNIX:
		return &unix.SockaddrUnix{Name: address}
	case address == "":
		address = map[int]string{unix.AF_INET: "127.0.0.1:0", unix.AF_INET6: "[::1]:0"}[family]
	}
	a, err := net.ResolveTCPAddr("tcp", address)
	must(t, err)
	if family == unix.AF_INET {
		return &unix.SockaddrInet4{Port: a.Port, Addr: [4]byte(a.IP.To4())}
	}
	return &unix.SockaddrInet6{Port: a.Port, Addr: [16]byte(a.IP.To16())}
}

// dial opens n connections, which end with the test.
func (o *open) dial(n int) []net.Conn {
	o.t.Helper()
	return o.dialTo(o.address, n)
}

func (o *open) dialTo(address string, n int) (conns []net.Conn) {
	o.t.Helper()
	for range n {
		c, err := net.Dial(o.network, address)
		must(o.t, err)
		o.t.Cleanup(func() { _ = c.Close() })
		conns = append(conns, c)
	}
	return conns
}

// port of a TCP address.
func (o *open) port() string {
	_, port, err := net.SplitHostPort(o.address)
	must(o.t, err)
	return port
}

// counts returns what each tree has open, by socket.
func counts(t testing.TB, trees map[int][]int, sockets ...*open) map[int][]int {
	t.Helper()
	var list []Socket
	for _, o := range sockets {
		list = append(list, o.Socket)
	}
	tallies, err := Connections(list, trees)
	must(t, err)
	got := make(map[int][]int)
	for leader, tally := range tallies {
		must(t, tally.Err)
		got[leader] = tally.Open
	}
	return got
}

// want waits until the worker's own process holds that many connections of each.
// The kernel may still be busy with an acknowledgement.
func (w *worker) want(open []int, sockets ...*open) {
	w.t.Helper()
	w.wantIn([]int{w.pid}, open, sockets...)
}

func (w *worker) wantIn(tree []int, want []int, sockets ...*open) {
	w.t.Helper()
	var got []int
	if !testkit.Eventually(w.t, testkit.Patience, func() bool {
		got = counts(w.t, map[int][]int{w.pid: tree}, sockets...)[w.pid]
		return fmt.Sprint(got) == fmt.Sprint(want)
	}) {
		w.t.Fatalf("counted %v, want %v", got, want)
	}
}

func (o *open) wantQueue(want int) {
	o.t.Helper()
	until(o.t, fmt.Sprintf("%d in the queue of %s", want, o.address), func() bool {
		n, err := o.Queue()
		must(o.t, err)
		return n == want
	})
}
