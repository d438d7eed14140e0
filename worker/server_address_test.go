//go:build linux

package worker

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func itoa(n int) string { return strconv.Itoa(n) }

// port is the server's, as text.
func (r *rig) port() string { return itoa(r.Addr().(*net.TCPAddr).Port) }

func TestServerDualStack(t *testing.T) {
	for what, c := range map[string]struct {
		config ListenConfig
		v4, v6 bool
	}{
		"no host":            {ListenConfig{}, true, true},
		"::":                 {ListenConfig{Host: "::"}, true, true},
		"0.0.0.0":            {ListenConfig{Host: "0.0.0.0"}, true, false},
		":: IPv6Only":        {ListenConfig{Host: "::", IPv6Only: true}, false, true},
		"IPv6Only":           {ListenConfig{IPv6Only: true}, false, true},
		"IPv6Only on IPv4":   {ListenConfig{Host: "0.0.0.0", IPv6Only: true}, true, false},
		"localhost is IPv4":  {ListenConfig{Host: "localhost"}, true, false},
		"::1":                {ListenConfig{Host: "::1"}, false, true},
		"network tcp4":       {ListenConfig{Network: "tcp4"}, true, false},
		"network tcp6 alone": {ListenConfig{Network: "tcp6"}, false, true},
	} {
		t.Run(what, func(t *testing.T) {
			// The port is chosen by the kernel for one family; a process beside this one
			// may have got the same for the other. Not three times.
			var v4, v6 bool
			for range 3 {
				r := newRig(t, ServerOptions{})
				if err := r.ListenWith(t.Context(), c.config); err != nil {
					t.Fatal(err)
				}
				v4, v6 = dial2("127.0.0.1:"+r.port())() == nil, dial2("[::1]:"+r.port())() == nil
				if v4 == c.v4 && v6 == c.v6 {
					return
				}
			}
			t.Errorf("IPv4 %v, IPv6 %v, want %v and %v", v4, v6, c.v4, c.v6)
		})
	}
}

// Who has an address, and who may have it beside him.
func TestServerAddressInUse(t *testing.T) {
	r := newRig(t, ServerOptions{})
	r.listen("127.0.0.1:0")
	for address, free := range map[string]bool{"127.0.0.1:": false, "0.0.0.0:": false, "[::]:": false, ":": false, "127.0.0.2:": true} {
		other := newRig(t, ServerOptions{Worker: r.w})
		err := other.Listen(t.Context(), "tcp", address+r.port())
		if free && err != nil || !free && !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("%s beside 127.0.0.1: %v", address, err)
		}
		_ = other.Close()
	}
	other := newRig(t, ServerOptions{Worker: r.w})
	if err := other.Listen(t.Context(), "tcp", "[::]:"+r.port(), IPv6Only()); err != nil {
		t.Errorf("IPv6Only beside 127.0.0.1: %v", err)
	}
	// IPv4's wildcard would be free, and is no way out.
	six := newRig(t, ServerOptions{})
	six.listen("[::1]:0")
	if err := newRig(t, ServerOptions{}).Listen(t.Context(), "tcp", ":"+six.port()); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("no host beside ::1: %v", err)
	}
}

// Without a host the last address that was tried is IPv4's: the fallback.
func TestServerFallbackToIPv4(t *testing.T) {
	start, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
	if n, _ := strconv.Atoi(strings.TrimSpace(string(start))); err != nil || n <= 80 {
		t.Skip("every port is free for everybody here")
	}
	if os.Getuid() == 0 {
		// bind(2) judges the thread: with another effective user it has no
		// capability. The thread ends with the goroutine if it cannot come back.
		runtime.LockOSThread()
		const keep = ^uintptr(0)
		if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, keep, 65534, keep); errno != 0 {
			t.Skip(errno)
		}
		defer func() {
			if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, keep, 0, keep); errno == 0 {
				runtime.UnlockOSThread()
			}
		}()
	}
	r := NewServer(ServerOptions{Worker: alone(t)}, nil)
	err = r.Listen(context.Background(), "tcp", ":80")
	if !errors.Is(err, syscall.EACCES) || !strings.Contains(err.Error(), "0.0.0.0:80") {
		t.Errorf("port 80 of an ordinary user: %v", err)
	}
}

func TestServerUnixModes(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct{ umask, none, readable, writable, both os.FileMode }{
		{0o000, 0o777, 0o777, 0o777, 0o777},
		{0o022, 0o755, 0o755, 0o777, 0o777},
		{0o027, 0o750, 0o754, 0o772, 0o776},
		{0o077, 0o700, 0o744, 0o722, 0o766},
		{0o777, 0o000, 0o444, 0o222, 0o666},
	} {
		for want, config := range map[*os.FileMode]ListenConfig{
			&c.none: {}, &c.readable: {ReadableAll: true}, &c.writable: {WritableAll: true}, &c.both: {ReadableAll: true, WritableAll: true},
		} {
			r := newRig(t, ServerOptions{})
			config.Path = filepath.Join(dir, "s")
			old := syscall.Umask(int(c.umask))
			err := r.ListenWith(t.Context(), config)
			syscall.Umask(old)
			if err != nil {
				t.Fatal(err)
			}
			if st, err := os.Stat(config.Path); err != nil || st.Mode().Perm() != *want {
				t.Errorf("umask %03o, readable %v, writable %v: %v, want %v", c.umask, config.ReadableAll, config.WritableAll, st.Mode().Perm(), *want)
			}
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestServerUnixPath(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	r := newRig(t, ServerOptions{})
	if err := r.Listen(t.Context(), "unix", "rel.sock"); err != nil {
		t.Fatal(err)
	}
	if got := r.Addr().String(); got != "rel.sock" || r.Addr().Network() != "unix" {
		t.Errorf("address: %q", got)
	}
	if _, err := os.Lstat(filepath.Join(dir, "rel.sock")); err != nil {
		t.Error(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if r.Addr().String() != "rel.sock" || r.IsListening() {
		t.Errorf("after the close: %v", r.Addr())
	}
	if _, err := os.Lstat("rel.sock"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the path after the close: %v", err)
	}
}

func TestServerUnixForeignPath(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	r := newRig(t, ServerOptions{})
	if err := r.Listen(t.Context(), "unix", path); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path, path+".moved"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	_ = r.Close()
	if b, err := os.ReadFile(path); err != nil || string(b) != "mine" {
		t.Errorf("a file that took the name: %q %v", b, err)
	}
}

func TestServerUnixErrors(t *testing.T) {
	dir := t.TempDir()
	file, live, stale := filepath.Join(dir, "file"), filepath.Join(dir, "live"), filepath.Join(dir, "stale")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, stays := range map[string]bool{live: true, stale: false} {
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if !stays {
			l.(*net.UnixListener).SetUnlinkOnClose(false)
			_ = l.Close()
		}
	}
	for path, want := range map[string]error{
		filepath.Join(dir, "none", "s"): syscall.ENOENT, file: syscall.EADDRINUSE, live: syscall.EADDRINUSE, dir: syscall.EADDRINUSE,
		filepath.Join(dir, strings.Repeat("x", 108)): syscall.ENAMETOOLONG, stale: nil,
	} {
		r := newRig(t, ServerOptions{})
		if err := r.Listen(t.Context(), "unix", path); want == nil && err != nil || !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", path, err, want)
		}
		if r.IsListening() != (want == nil) {
			t.Errorf("%s: listening %v", path, r.IsListening())
		}
	}
	for _, path := range []string{file, live, dir} { // nothing of others is removed
		if _, err := os.Lstat(path); err != nil {
			t.Error(err)
		}
	}
	c, err := net.Dial("unix", live)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
}

func TestServerUnixAbstract(t *testing.T) {
	name := "supervisord-test-" + itoa(os.Getpid())
	for _, path := range []string{"@" + name, "\x00" + name} {
		r := newRig(t, ServerOptions{})
		if err := r.Listen(t.Context(), "unix", path); err != nil {
			t.Fatal(err)
		}
		c, err := net.Dial("unix", "@"+name)
		if err != nil {
			t.Fatal(err)
		}
		r.next()
		_ = c.Close()
		if r.Addr().String() != path {
			t.Errorf("address: %q", r.Addr())
		}
		_ = r.Stop()
	}
}
