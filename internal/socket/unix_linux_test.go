package socket

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/internal/proto"
)

var unixNetworks = []string{"unix", "unixpacket", "unixgram"}

func TestUnixPath(t *testing.T) {
	noLeaks(t)
	for _, network := range unixNetworks {
		path := filepath.Join(t.TempDir(), "s")
		f, b := mustBind(t, proto.SocketSpec{Network: network, Address: path})
		if got, address, _, err := Address(f.Fd()); got != network || address != path || err != nil {
			t.Errorf("Address = %s %s, %v", got, address, err)
		}
		if !Matches(f.Fd(), proto.SocketSpec{Network: network, Address: path}) ||
			Matches(f.Fd(), proto.SocketSpec{Network: network, Address: path + "x"}) {
			t.Error("Matches is wrong")
		}
		c, err := net.Dial(network, path)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
		if _, _, err := Bind(proto.SocketSpec{Network: network, Address: path}); !errors.Is(err, syscall.EADDRINUSE) ||
			!strings.Contains(err.Error(), "another process has it open") {
			t.Errorf("%s: a live socket: %v", network, err)
		}
		_ = f.Close()
		again, b2 := mustBind(t, proto.SocketSpec{Network: network, Address: path}) // stale now
		if err := Unlink(b); b2.Inode == b.Inode && err != nil || b2.Inode != b.Inode && !errors.Is(err, ErrForeign) {
			t.Errorf("Unlink of the first: %v", err)
		}
		_ = again.Close()
		if err := Unlink(b2); err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(path); !os.IsNotExist(err) {
			t.Errorf("not removed: %v", err)
		}
		if err := Unlink(b2); err != nil {
			t.Errorf("second Unlink: %v", err)
		}
	}
}

func TestUnixLiveSocketOfAnotherType(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	mustBind(t, proto.SocketSpec{Network: "unixgram", Address: path})
	if _, _, err := Bind(proto.SocketSpec{Network: "unix", Address: path}); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("got %v", err)
	}
}

func TestUnixNeverDeletesWhatIsNoSocket(t *testing.T) {
	noLeaks(t)
	dir := t.TempDir()
	file, sub, link := filepath.Join(dir, "file"), filepath.Join(dir, "dir"), filepath.Join(dir, "link")
	if err := errors.Join(os.WriteFile(file, []byte("x"), 0o600), os.Mkdir(sub, 0o700), os.Symlink(filepath.Join(dir, "gone"), link)); err != nil {
		t.Fatal(err)
	}
	for path, kind := range map[string]string{file: "a regular file", sub: "a directory", link: "a symbolic link"} {
		_, _, err := Bind(proto.SocketSpec{Network: "unix", Address: path})
		if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), "it is "+kind+", not a socket") {
			t.Errorf("%s: %v", kind, err)
		}
		if _, err := os.Lstat(path); err != nil {
			t.Errorf("%s is gone", kind)
		}
	}
}

func TestUnixAbstract(t *testing.T) {
	noLeaks(t)
	name := "@supervisord-test-" + filepath.Base(t.TempDir()) + filepath.Base(os.Args[0])
	f, b := mustBind(t, proto.SocketSpec{Network: "unix", Address: name})
	if b.Address != name || b.Inode != 0 || !Matches(f.Fd(), proto.SocketSpec{Network: "unix", Address: name}) {
		t.Errorf("bound: %+v", b)
	}
	if _, _, err := Bind(proto.SocketSpec{Network: "unix", Address: name}); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("twice: %v", err)
	}
	if err := Unlink(b); err != nil {
		t.Error(err)
	}
}

func TestUnixBadPaths(t *testing.T) {
	noLeaks(t)
	dir := t.TempDir()
	for _, c := range []struct {
		spec proto.SocketSpec
		want error
	}{
		{proto.SocketSpec{Network: "unix"}, syscall.EINVAL},
		{proto.SocketSpec{Network: "unix", Address: "@"}, syscall.EINVAL},
		{proto.SocketSpec{Network: "unix", Address: "/a\x00b"}, syscall.EINVAL},
		{proto.SocketSpec{Network: "unix", Address: "@a", WritableAll: true}, syscall.EINVAL},
		{proto.SocketSpec{Network: "unix", Address: "/" + strings.Repeat("a", 107)}, syscall.ENAMETOOLONG},
		{proto.SocketSpec{Network: "unix", Address: "@" + strings.Repeat("a", 107)}, syscall.ENAMETOOLONG},
		{proto.SocketSpec{Network: "unix", Address: filepath.Join(dir, "missing", "s")}, syscall.ENOENT},
	} {
		if _, _, err := Bind(c.spec); !errors.Is(err, c.want) {
			t.Errorf("%.40q: got %v, want %v", c.spec.Address, err, c.want)
		}
	}
	mustBind(t, proto.SocketSpec{Network: "unix", Address: "@" + strings.Repeat("a", 106)})
}

// The table of node-semantics.md §1.5, for the umask this process has: changing
// it would change it for every goroutine.
func TestUnixModes(t *testing.T) {
	mask := uint32(unix.Umask(0))
	unix.Umask(int(mask))
	made := 0o777 &^ mask
	exact := uint32(0o620)
	for _, c := range []struct {
		spec proto.SocketSpec
		want uint32
	}{
		{proto.SocketSpec{}, made},
		{proto.SocketSpec{ReadableAll: true}, made | 0o444},
		{proto.SocketSpec{WritableAll: true}, made | 0o222},
		{proto.SocketSpec{ReadableAll: true, WritableAll: true}, made | 0o666},
		{proto.SocketSpec{Mode: &exact}, exact},
		{proto.SocketSpec{Mode: &exact, WritableAll: true}, exact | 0o222},
	} {
		for _, c.spec.Network = range unixNetworks {
			c.spec.Address = filepath.Join(t.TempDir(), "s")
			mustBind(t, c.spec)
			st, err := os.Lstat(c.spec.Address)
			if err != nil || uint32(st.Mode().Perm()) != c.want {
				t.Errorf("%+v: %v, want %o", c.spec, st.Mode(), c.want)
			}
		}
	}
}

func TestUnixOwner(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	uid, gid := 65534, 65533
	path := filepath.Join(t.TempDir(), "s")
	mustBind(t, proto.SocketSpec{Network: "unix", Address: path, Owner: &uid, Group: &gid})
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil || st.Uid != 65534 || st.Gid != 65533 {
		t.Errorf("owned by %d:%d, %v", st.Uid, st.Gid, err)
	}
}

// Masters that start at the same time over a stale path: exactly one gets it.
func TestUnixStaleRace(t *testing.T) {
	noLeaks(t)
	for range 20 {
		path := filepath.Join(t.TempDir(), "s")
		f, _ := mustBind(t, proto.SocketSpec{Network: "unix", Address: path})
		_ = f.Close()
		var wg sync.WaitGroup
		var mu sync.Mutex
		won := 0
		for range 8 {
			wg.Go(func() {
				f, _, err := Bind(proto.SocketSpec{Network: "unix", Address: path})
				if err != nil {
					if !errors.Is(err, syscall.EADDRINUSE) {
						t.Error(err)
					}
					return
				}
				mu.Lock()
				won++
				mu.Unlock()
				t.Cleanup(func() { _ = f.Close() })
			})
		}
		wg.Wait()
		if won != 1 {
			t.Fatalf("%d masters have the path", won)
		}
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
	}
}
