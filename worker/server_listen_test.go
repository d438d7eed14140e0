//go:build linux

package worker

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/internal/socket"
)

// descriptor runs f with the number of a file's descriptor.
func descriptor(t *testing.T, c syscall.Conn, f func(fd uintptr)) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(f); err != nil {
		t.Fatal(err)
	}
}

// fd is the descriptor of the socket a server listens on.
func (r *rig) fd(f func(fd int)) {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	descriptor(r.t, r.period.own, func(n uintptr) { f(int(n)) })
}

func TestServerListenForms(t *testing.T) {
	plain := func(t *testing.T) *net.TCPListener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		return l.(*net.TCPListener)
	}
	file := func(t *testing.T) *os.File {
		f, err := plain(t).File()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() })
		return f
	}
	ctx := context.Background()
	for what, listen := range map[string]func(*testing.T, *rig) error{
		"address":  func(_ *testing.T, r *rig) error { return r.Listen(ctx, "tcp", "127.0.0.1:0") },
		"name":     func(_ *testing.T, r *rig) error { return r.Listen(ctx, "tcp", "localhost:0") },
		"zero":     func(_ *testing.T, r *rig) error { return r.ListenWith(ctx, ListenConfig{}) },
		"options":  func(_ *testing.T, r *rig) error { return r.ListenWith(ctx, ListenConfig{Host: "::1", Backlog: 9}) },
		"listener": func(t *testing.T, r *rig) error { return r.ListenOn(ctx, plain(t)) },
		"wrapped":  func(t *testing.T, r *rig) error { return r.ListenOn(ctx, struct{ net.Listener }{plain(t)}) },
		"handle":   func(t *testing.T, r *rig) error { return r.ListenWith(ctx, ListenConfig{Listener: plain(t)}) },
		"file":     func(t *testing.T, r *rig) error { return r.ListenWith(ctx, ListenConfig{File: file(t)}) },
		"path": func(t *testing.T, r *rig) error {
			return r.Listen(ctx, "unix", filepath.Join(t.TempDir(), "s"))
		},
		"seqpacket": func(t *testing.T, r *rig) error {
			return r.ListenWith(ctx, ListenConfig{Network: "unixpacket", Path: filepath.Join(t.TempDir(), "s")})
		},
		"server": func(t *testing.T, r *rig) error {
			first := NewServer(ServerOptions{Worker: r.w}, nil)
			t.Cleanup(func() { _ = first.Stop() })
			if err := first.Listen(ctx, "tcp", "127.0.0.1:0"); err != nil {
				return err
			}
			defer first.Stop() // the second goes on
			return r.ListenWith(ctx, ListenConfig{Server: first})
		},
	} {
		t.Run(what, func(t *testing.T) {
			r := newRig(t, ServerOptions{})
			if err := listen(t, r); err != nil {
				t.Fatal(err)
			}
			c, err := net.Dial(r.Addr().Network(), r.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			_, _ = r.next().Write([]byte("W"))
			var b [1]byte
			if _, err := c.Read(b[:]); err != nil || b[0] != 'W' {
				t.Errorf("from the server: %q %v", b, err)
			}
			if n, err := r.w.Connections(ctx); err != nil || n.Total != 1 {
				t.Errorf("the worker counts %+v %v", n, err)
			}
			r.saw("listening connection")
		})
	}
}

// What the reference throws is returned, told to nobody, and costs nothing.
func TestServerListenBad(t *testing.T) {
	r := newRig(t, ServerOptions{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	for what, err := range map[string]error{
		"datagram network":   r.Listen(ctx, "udp", ":0"),
		"unknown network":    r.Listen(ctx, "tpc", ":0"),
		"empty path":         r.Listen(ctx, "unix", ""),
		"port -1":            r.ListenWith(ctx, ListenConfig{Port: -1}),
		"port 65536":         r.ListenWith(ctx, ListenConfig{Port: 65536}),
		"port and path":      r.ListenWith(ctx, ListenConfig{Port: 1, Path: "/tmp/s"}),
		"listener and host":  r.ListenWith(ctx, ListenConfig{Host: "::", Listener: l}),
		"network and path":   r.ListenWith(ctx, ListenConfig{Network: "tcp", Path: "/tmp/s"}),
		"unix without path":  r.ListenWith(ctx, ListenConfig{Network: "unix"}),
		"bad port and path":  r.ListenWith(ctx, ListenConfig{Port: -1, Path: "/tmp/s"}),
		"file and port":      r.ListenWith(ctx, ListenConfig{File: os.Stdin, Port: 1}),
		"server and path":    r.ListenWith(ctx, ListenConfig{Server: r.Server, Path: "/tmp/s"}),
		"name and host":      r.ListenWith(ctx, ListenConfig{Name: "web", Host: "::1"}),
		"abstract, readable": r.ListenWith(ctx, ListenConfig{Path: "@x", ReadableAll: true}),
		"abstract, writable": r.Listen(ctx, "unix", "\x00x", WritableAll()),
		"abstract, mode":     r.Listen(ctx, "unix", "@x", Mode(0o600)),
	} {
		if !errors.Is(err, ErrBadListen) {
			t.Errorf("%s: %v", what, err)
		}
	}
	var bad *net.AddrError
	for _, address := range []string{"8080", "127.0.0.1", "127.0.0.1:65536", "127.0.0.1:-1"} {
		if err := r.Listen(ctx, "tcp", address); !errors.As(err, &bad) {
			t.Errorf("%q: %v", address, err)
		}
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a listener that was taken in vain: %v", err)
	}
	other := newRig(t, ServerOptions{})
	if err := r.ListenServer(ctx, other.Server); !errors.Is(err, ErrServerNotRunning) {
		t.Errorf("a server that does not listen: %v", err)
	}
	foreign, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := other.ListenOn(ctx, struct{ net.Listener }{foreign}); err != nil {
		t.Fatal(err)
	}
	if err := r.ListenServer(ctx, other.Server); !errors.Is(err, ErrBadListen) {
		t.Errorf("a server whose listener is foreign: %v", err)
	}
	r.listen("127.0.0.1:0")
	r.connect()
	r.saw("listening connection")
}

func TestServerListenErrors(t *testing.T) {
	r := newRig(t, ServerOptions{})
	var dns *net.DNSError
	if err := r.Listen(t.Context(), "tcp", "no-such-host.invalid:0"); !errors.As(err, &dns) {
		t.Errorf("a name that nobody knows: %v", err)
	}
	r.saw("error")
	err := r.Listen(t.Context(), "tcp", "192.0.2.1:0")
	if !errors.Is(err, syscall.EADDRNOTAVAIL) || !strings.Contains(err.Error(), "192.0.2.1:0") {
		t.Errorf("an address of others: %v", err)
	}
	r.saw("error error")
	r.listen("127.0.0.1:0")
	r.saw("error error listening")
}

// Two servers on one handle share it; in the reference the last one has it all.
func TestServerHandleShared(t *testing.T) {
	hold := make(chan struct{})
	held := ServerOptions{OnConnection: func(*Socket) { <-hold }} // takes one, and no other meanwhile
	a := newRig(t, held)
	a.listen("127.0.0.1:0")
	held.Worker = a.w
	b := newRig(t, held)
	if err := b.ListenServer(t.Context(), a.Server); err != nil {
		t.Fatal(err)
	}
	if a.Addr().String() != b.Addr().String() {
		t.Errorf("%v and %v", a.Addr(), b.Addr())
	}
	addr := a.Addr().String()
	_, _ = dial(t, addr), dial(t, addr)
	eventually(t, "both have one", func() bool { return a.Connections() == 1 && b.Connections() == 1 })
	close(hold)
	_, _ = a.next().Close(), b.next().Close()
	_ = a.Stop()
	eventually(t, "a is closed", func() bool { return strings.Contains(a.events.String(), "close") })
	b.connect()
	_ = b.Stop()
	b.refuses(addr)
}

func TestServerFD(t *testing.T) {
	r := newRig(t, ServerOptions{})
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	if err := r.ListenFD(t.Context(), 9999); !errors.Is(err, syscall.EBADF) {
		t.Errorf("a number without a file: %v", err)
	}
	if err := r.ListenWith(t.Context(), ListenConfig{File: f}); !errors.Is(err, syscall.ENOTSOCK) {
		t.Errorf("a file: %v", err)
	}
	descriptor(t, pc.(*net.UDPConn), func(fd uintptr) {
		if err := r.ListenFD(t.Context(), fd); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("a datagram socket: %v", err)
		}
	})
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := r.ListenFD(t.Context(), uintptr(fd), Backlog(33)); err != nil {
		t.Fatal(err)
	}
	if _, limit, err := socket.Queue(fd); err != nil || limit != 33 {
		t.Errorf("backlog %d %v", limit, err)
	}
	if statusFlags(t, fd)&unix.O_NONBLOCK == 0 {
		t.Error("the socket blocks")
	}
	r.connect()
	if err := r.Stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil {
		t.Errorf("a borrowed descriptor was closed: %v", err)
	}
}

func TestServerBacklog(t *testing.T) {
	somaxconn, err := os.ReadFile("/proc/sys/net/core/somaxconn")
	if err != nil {
		t.Skip(err)
	}
	for wish, want := range map[int]string{0: "511", 7: "7", 99999: strings.TrimSpace(string(somaxconn)), -5: strings.TrimSpace(string(somaxconn))} {
		r := newRig(t, ServerOptions{})
		r.listen("127.0.0.1:0", Backlog(wish))
		r.fd(func(fd int) {
			if _, limit, err := socket.Queue(fd); err != nil || want != itoa(limit) {
				t.Errorf("%d: in force %d, want %s: %v", wish, limit, want, err)
			}
		})
	}
}

func TestServerReusePort(t *testing.T) {
	noLeak(t)
	w, m := joined(t)
	a := newRig(t, ServerOptions{Worker: w})
	a.listen("127.0.0.1:0", ReusePort())
	addr := a.Addr().String()
	b := newRig(t, ServerOptions{Worker: w})
	if err := b.Listen(t.Context(), "tcp", addr, ReusePort()); err != nil {
		t.Fatal(err)
	}
	c := newRig(t, ServerOptions{})
	if err := c.Listen(t.Context(), "tcp", addr); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("without the option: %v", err)
	}
	_ = a.Stop()
	b.connect()
	_ = m.conn.Close() // a supervisor that was not asked: its messages end without a listen
	for e := range m.in {
		if e.Body.Type() == "listen" {
			t.Errorf("the supervisor was asked: %+v", e)
		}
	}
}
