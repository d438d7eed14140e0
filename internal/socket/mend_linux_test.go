package socket

import (
	"errors"
	"net"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
	"github.com/f72e338e/supervisord/internal/proto"
)

// reachable connects and reports whether the socket's queue got the connection, and
// whether that can be read from.
func reachable(t *testing.T, f *fdpass.File, network, address string) bool {
	t.Helper()
	c, err := net.Dial(network, address)
	if err != nil {
		return false
	}
	defer func() { _ = c.Close() }()
	n, _, err := unix.Accept4(f.Fd(), unix.SOCK_NONBLOCK)
	if err != nil {
		return false
	}
	defer func() { _ = unix.Close(n) }()
	_, err = unix.Read(n, make([]byte, 1))
	return errors.Is(err, unix.EAGAIN)
}

// TestMendOnTheSameSocket: whatever a holder did, Examine names it once, and Mend undoes it for all.
func TestMendOnTheSameSocket(t *testing.T) {
	shut := func(how int) func(int) error { return func(fd int) error { return unix.Shutdown(fd, how) } }
	again := func(fd int) error { return unix.Listen(fd, 3) }
	setFlags := func(set, clear int) func(int) error {
		return func(fd int) error {
			flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
			if err == nil {
				_, err = unix.FcntlInt(uintptr(fd), unix.F_SETFL, (flags|set)&^clear)
			}
			return err
		}
	}
	move := func(fd int) error { return errors.Join(unix.Shutdown(fd, unix.SHUT_RD), unix.Listen(fd, 5)) }
	twice := func(fd int) error {
		_ = unix.Shutdown(fd, unix.SHUT_RDWR)
		_ = unix.Shutdown(fd, unix.SHUT_RDWR)
		return nil
	}
	_, other := mustBind(t, proto.SocketSpec{Network: "tcp", Address: "127.0.0.1"})
	away := func(fd int) error {
		_ = unix.Shutdown(fd, unix.SHUT_RDWR)
		if err := unix.Connect(fd, &unix.SockaddrInet4{Port: other.Port, Addr: [4]byte{127, 0, 0, 1}}); err != nil && !errors.Is(err, unix.EINPROGRESS) {
			return err
		}
		return nil
	}
	for name, c := range map[string]struct {
		network string
		number  bool // the port is asked for by number
		deed    func(fd int) error
		what    string
		revived bool
	}{
		"shut for reading":  {"tcp", true, shut(unix.SHUT_RD), "shut down", true},
		"shut for both":     {"tcp", true, shut(unix.SHUT_RDWR), "shut down", true},
		"a port of chance":  {"tcp", false, shut(unix.SHUT_RDWR), "shut down", true},
		"IPv6, of chance":   {"tcp6", false, shut(unix.SHUT_RDWR), "shut down", true},
		"shut twice":        {"tcp", true, twice, "shut down", true},
		"chance, twice":     {"tcp", false, twice, "shut down", true},
		"connected away":    {"tcp", true, away, "shut down", true},
		"another port":      {"tcp", false, move, "moved to port ", true},
		"not moved":         {"tcp", true, move, "", false},
		"backlog":           {"tcp", true, again, "backlog changed from 5 to 3", false},
		"blocking":          {"tcp", true, setFlags(0, unix.O_NONBLOCK), "made blocking", false},
		"signals":           {"tcp", true, setFlags(unix.O_ASYNC, 0), "made to send signals", false},
		"UDP blocking":      {"udp", true, setFlags(0, unix.O_NONBLOCK), "made blocking", false},
		"Unix blocking":     {"unix", true, setFlags(0, unix.O_NONBLOCK), "made blocking", false},
		"shut for writing":  {"tcp", true, shut(unix.SHUT_WR), "", false},
		"Unix, for writing": {"unix", true, shut(unix.SHUT_WR), "", false},
	} {
		t.Run(name, func(t *testing.T) {
			noLeaks(t)
			spec := proto.SocketSpec{Network: c.network, Address: "127.0.0.1", Backlog: 5}
			switch c.network {
			case "tcp6":
				spec.Address = "::1"
			case "unix":
				spec.Address = filepath.Join(t.TempDir(), "s")
			default:
				if c.number {
					spec.Port = freePort(t)
				}
			}
			f, b := mustBind(t, spec)
			if d := Examine(f.Fd(), c.network, b); d != nil {
				t.Fatalf("a new socket: %v", d)
			}
			for range 2 { // also when it was mended before
				if err := c.deed(f.Fd()); err != nil {
					t.Fatal(err)
				}
				d := Examine(f.Fd(), c.network, b)
				if c.what == "" && d != nil || c.what != "" && (len(d) != 1 || d[0].Shut != c.revived || d[0].What[:min(len(c.what), len(d[0].What))] != c.what) {
					t.Fatalf("found %v, want %q", d, c.what)
				}
				now, revived, err := Mend(f.Fd(), c.network, b)
				if err != nil || now != b || c.what != "" && revived != c.revived {
					t.Fatalf("mended %+v, revived %v, %v; was %+v", now, revived, err, b)
				}
				if d := Examine(f.Fd(), c.network, b); d != nil {
					t.Fatalf("after it was mended: %v", d)
				}
				if c.network != "udp" && !reachable(t, f, c.network, b.Address) {
					t.Fatal("mended, and not reached")
				}
				if c.what == "moved to port " { // its port was bound by number now
					c.what, c.revived = "", false
				}
			}
		})
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	n, _ := strconv.Atoi(port)
	return n
}

// TestUnixSocketsStayDead: what was shut down for ever is replaced by a new socket at the same path.
func TestUnixSocketsStayDead(t *testing.T) {
	for _, network := range []string{"unix", "unixpacket"} {
		for name, how := range map[string]int{"reading": unix.SHUT_RD, "both": unix.SHUT_RDWR} {
			t.Run(network+" shut for "+name, func(t *testing.T) {
				noLeaks(t)
				spec := proto.SocketSpec{Network: network, Address: filepath.Join(t.TempDir(), "s")}
				f, b := mustBind(t, spec)
				if err := unix.Shutdown(f.Fd(), how); err != nil {
					t.Fatal(err)
				}
				if d := Examine(f.Fd(), network, b); len(d) != 1 || !d[0].Shut {
					t.Fatalf("found %v", d)
				}
				if _, _, err := Mend(f.Fd(), network, b); !errors.Is(err, ErrDead) {
					t.Fatalf("mended: %v", err)
				}
				if err := unix.Listen(f.Fd(), 5); err != nil || reachable(t, f, network, b.Address) {
					t.Fatalf("after listen(2): %v, and it is reached: ErrDead is wrong", err)
				}
				if err := Unlink(b); err != nil {
					t.Fatal(err)
				}
				if f, b := mustBind(t, spec); !reachable(t, f, network, b.Address) {
					t.Fatal("the new one is not reached")
				}
			})
		}
	}
}
