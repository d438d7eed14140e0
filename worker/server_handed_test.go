//go:build linux

package worker

import (
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
)

// Connections that a supervisor handed over have the options of a Server too.
func TestServerHandedConnection(t *testing.T) {
	noLeak(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c := dial(t, l.Addr().String())
	in, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	var fd int
	descriptor(t, in.(*net.TCPConn), func(n uintptr) { fd, err = unix.FcntlInt(n, unix.F_DUPFD_CLOEXEC, 0) })
	_ = in.Close()
	if err != nil {
		t.Fatal(err)
	}
	h := newHandedConn(fdpass.NewFile(fd), &channel{tcp: true, page: &memberPage{new([2]uint64)}})
	w := alone(t)
	h.tally.l = &listener{w: w, given: func() {}}
	s := NewServer(ServerOptions{Worker: w, NoDelay: Off, KeepAlive: On, KeepAliveInitialDelay: 7 * time.Second}, func(c *Socket) { _, _ = io.Copy(c, c) })
	s.take(&period{w: w, own: h.tally.l, deaf: true, over: true, stopping: make(chan struct{})}, h)
	for which, want := range map[int]int{unix.TCP_NODELAY: 0, unix.TCP_KEEPIDLE: 7, unix.TCP_KEEPINTVL: 1, unix.TCP_KEEPCNT: 10} {
		var got int
		if err := h.control(func(fd int) { got, _ = unix.GetsockoptInt(fd, unix.IPPROTO_TCP, which) }); err != nil || got != want {
			t.Errorf("option %d: %d, want %d, %v", which, got, want, err)
		}
	}
	_, _ = io.WriteString(c, "echo")
	_ = c.Conn.(*net.TCPConn).CloseWrite()
	if b, err := io.ReadAll(c); err != nil || string(b) != "echo" {
		t.Errorf("echo: %q %v", b, err)
	}
	eventually(t, "it is counted out", func() bool { return s.Connections() == 0 })
}
