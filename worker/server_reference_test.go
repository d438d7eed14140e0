//go:build linux

package worker

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Rows of the reference that a stand-alone server shows and no other test does.

// What is a port, what a path, and what a name of one.
func TestServerListenText(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, path := range []string{"8080abc", "-1", "123"} {
		r := newRig(t, ServerOptions{})
		if err := r.ListenWith(t.Context(), ListenConfig{Path: path}); err != nil {
			t.Fatal(err)
		}
		if st, err := os.Lstat(path); err != nil || st.Mode().Type() != os.ModeSocket || r.Addr().String() != path {
			t.Errorf("%q: %v, %v", path, r.Addr(), err)
		}
		_ = r.Close()
	}
	r := newRig(t, ServerOptions{})
	var unknown *net.DNSError
	for _, port := range []string{"abc", "1.5", "0x50", " ", " 80 "} {
		if err := r.Listen(t.Context(), "tcp", "127.0.0.1:"+port); !errors.As(err, &unknown) {
			t.Errorf("port %q: %v", port, err)
		}
	}
	r.saw("error error error error error") // they were looked up
	r.listen("127.0.0.1:")                 // no port: any
	r.connect()
}

// A descriptor may be listened on as often as one likes.
func TestServerFDTwice(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, b := newRig(t, ServerOptions{}), newRig(t, ServerOptions{})
	descriptor(t, l.(*net.TCPListener), func(fd uintptr) {
		for _, r := range []*rig{a, b} {
			if err := r.ListenFD(t.Context(), fd); err != nil {
				t.Fatal(err)
			}
		}
	})
	_ = a.Close()
	b.connect()
}

// What waits in the accept queue is reset; accepted ones are not, and the path of a
// Unix socket is gone at once.
func TestServerStopRefusesQueued(t *testing.T) {
	hold := make(chan struct{})
	r := newRig(t, ServerOptions{OnListening: func() { <-hold }}) // nothing is accepted before
	r.listen("127.0.0.1:0")
	addr := r.Addr().String()
	c := dial(t, addr)
	if err := r.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := atEnd(t, c); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the one in the queue: %v", err)
	}
	if err := dial2(addr)(); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a later one: %v", err)
	}
	close(hold)
	r.saw("listening close")

	u := newRig(t, ServerOptions{})
	if err := u.Listen(t.Context(), "unix", filepath.Join(t.TempDir(), "s")); err != nil {
		t.Fatal(err)
	}
	client, err := net.Dial("unix", u.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	s := u.next()
	if err := u.Stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(u.Addr().String()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the path while a connection is open: %v", err)
	}
	if _, err := io.WriteString(s, "x"); err != nil {
		t.Error(err)
	}
}

// The port of a connection that the server closed first is free for the server.
func TestServerReuseAddress(t *testing.T) {
	r := newRig(t, ServerOptions{})
	r.listen("127.0.0.1:0")
	addr := r.Addr().String()
	c, s := r.connect()
	_ = s.Close()
	if err := atEnd(t, c); err != io.EOF {
		t.Fatal(err)
	}
	_ = c.Close() // the server's end is in TIME_WAIT
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	r.listen(addr)
}

// The backlog of a Unix socket: the kernel takes one more, and no other.
func TestServerUnixBacklog(t *testing.T) {
	for wish, want := range map[int]int{0: 12, 3: 4} { // 511 takes all the twelve
		hold := make(chan struct{})
		r := newRig(t, ServerOptions{OnListening: func() { <-hold }})
		path := filepath.Join(t.TempDir(), "s")
		if err := r.Listen(t.Context(), "unix", path, Backlog(wish)); err != nil {
			t.Fatal(err)
		}
		took := 0
		var err error
		for err == nil && took < 12 {
			fd, serr := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
			if serr != nil {
				t.Fatal(serr)
			}
			defer unix.Close(fd)
			if err = unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err == nil {
				took++
			}
		}
		if took != want || took < 12 && err != unix.EAGAIN {
			t.Errorf("backlog %d: took %d, then %v", wish, took, err)
		}
		close(hold)
		for range took {
			_ = r.next().Close()
		}
	}
}

// The longest path, and the same name in a directory that makes it too long.
func TestServerUnixLength(t *testing.T) {
	dir, err := os.MkdirTemp("", "") // short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	r := newRig(t, ServerOptions{})
	longest := filepath.Join(dir, strings.Repeat("x", 106-len(dir)))
	if err := r.Listen(t.Context(), "unix", longest); err != nil || len(longest) != 107 {
		t.Fatalf("%d bytes: %v", len(longest), err)
	}
	c, err := net.Dial("unix", longest)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	_ = r.next().Close()
	_ = r.Close()
	if err := r.Listen(t.Context(), "unix", longest+"x"); !errors.Is(err, syscall.ENAMETOOLONG) {
		t.Errorf("108 bytes: %v", err)
	}
	deep := filepath.Join(dir, strings.Repeat("d", 100))
	if err := os.Mkdir(deep, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Chdir(deep)
	if err := r.Listen(t.Context(), "unix", "rel.sock"); !errors.Is(err, syscall.ENAMETOOLONG) {
		t.Errorf("a short name in a long directory: %v", err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v %v", entries, err)
	}
}

// Close while a host is looked up: never listening, no error.
func TestServerCloseWhileLooking(t *testing.T) {
	looked := make(chan struct{}, 1)
	old := net.DefaultResolver
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		select {
		case looked <- struct{}{}:
		default:
		}
		<-ctx.Done()
		return nil, ctx.Err()
	}}
	defer func() { net.DefaultResolver = old }()
	r := newRig(t, ServerOptions{})
	ended := returns(func() error { return r.Listen(t.Context(), "tcp", "host.example:0") })
	<-looked
	if r.IsListening() || r.Addr() != nil {
		t.Error("listening before the host is known")
	}
	if err := r.Listen(t.Context(), "tcp", "127.0.0.1:0"); !errors.Is(err, ErrAlreadyListening) {
		t.Errorf("a Listen beside another: %v", err)
	}
	if err := r.Close(); !errors.Is(err, ErrServerNotRunning) {
		t.Errorf("close: %v", err)
	}
	if err := <-ended; !errors.Is(err, ErrServerClosed) {
		t.Errorf("listen: %v", err)
	}
	r.saw("close")
	r.listen("127.0.0.1:0")
	r.saw("close listening")
}
