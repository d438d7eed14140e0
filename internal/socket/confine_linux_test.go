package socket

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/internal/proto"
)

// confinement makes a directory that the worker's user owns, with a directory
// of ours beside it, and returns both.
func confinement(t *testing.T) (c *proto.Confine, outside string) {
	t.Helper()
	base, err := os.MkdirTemp("", "c") // t.TempDir is closed to others, and long
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(base) })
	c = &proto.Confine{Directory: filepath.Join(base, "in"), UID: os.Getuid(), GID: os.Getgid()}
	outside = filepath.Join(base, "out")
	if err := errors.Join(os.Chmod(base, 0o755), os.Mkdir(c.Directory, 0o755), os.Mkdir(filepath.Join(c.Directory, "sub"), 0o755), os.Mkdir(outside, 0o755)); err != nil {
		t.Fatal(err)
	}
	if os.Getuid() == 0 {
		c.UID, c.GID = 65534, 65534
		if err := errors.Join(os.Chown(c.Directory, c.UID, c.GID), os.Chown(filepath.Join(c.Directory, "sub"), c.UID, c.GID)); err != nil {
			t.Fatal(err)
		}
	}
	return c, outside
}

func TestConfined(t *testing.T) {
	noLeaks(t)
	c, _ := confinement(t)
	mode := uint32(0o666)
	for _, address := range []string{"s", "sub/s", "sub/../t", filepath.Join(c.Directory, "u")} {
		_, b := mustBind(t, proto.SocketSpec{Network: "unix", Address: address, Confine: c, Mode: &mode})
		want := address
		if !filepath.IsAbs(want) {
			want = filepath.Join(c.Directory, want)
		}
		var st unix.Stat_t
		if err := unix.Lstat(want, &st); err != nil || b.Address != want || st.Ino != b.Inode ||
			int(st.Uid) != c.UID || int(st.Gid) != c.GID || st.Mode&0o777 != mode {
			t.Errorf("%s: %+v, %+v, %v", address, b, st, err)
		}
		if err := Unlink(b); err != nil {
			t.Error(err)
		}
	}
	// The process, and every other thread of it, is who it was.
	if uid, _ := unix.SetfsuidRetUid(-1); uid != os.Geteuid() {
		t.Errorf("fsuid is %d", uid)
	}
	if d, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); err != nil || d != 1 {
		t.Errorf("dumpable: %d, %v", d, err)
	}
}

func TestConfinedRefuses(t *testing.T) {
	noLeaks(t)
	c, outside := confinement(t)
	if err := errors.Join(os.Symlink(outside, filepath.Join(c.Directory, "link")),
		os.Symlink("sub", filepath.Join(c.Directory, "within"))); err != nil {
		t.Fatal(err)
	}
	for _, address := range []string{"../out/s", outside + "/s", "link/s", "within/s", ".", "..", "sub/../../out/s"} {
		_, _, err := Bind(proto.SocketSpec{Network: "unix", Address: address, Confine: c})
		if !errors.Is(err, syscall.EACCES) {
			t.Errorf("%s: %v", address, err)
		}
	}
	left, err := os.ReadDir(outside)
	if err != nil || len(left) != 0 {
		t.Errorf("made outside: %v, %v", left, err)
	}
}

func TestConfinedHasOnlyTheWorkersRights(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	c, outside := confinement(t)
	c.Directory = outside // owned by root, closed to the worker
	if _, _, err := Bind(proto.SocketSpec{Network: "unix", Address: "s", Confine: c}); !errors.Is(err, syscall.EACCES) {
		t.Errorf("in a directory of root: %v", err)
	}
	root := 0
	c, _ = confinement(t)
	if _, _, err := Bind(proto.SocketSpec{Network: "unix", Address: "s", Confine: c, Owner: &root}); !errors.Is(err, syscall.EPERM) {
		t.Errorf("giving the path to root: %v", err)
	}
	if left, _ := os.ReadDir(c.Directory); len(left) != 1 { // "sub"
		t.Errorf("left behind: %v", left)
	}
}

func TestConfinedByAnOrdinaryUser(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("needs an ordinary user")
	}
	c, _ := confinement(t)
	c.UID = os.Getuid() + 1
	_, _, err := Bind(proto.SocketSpec{Network: "unix", Address: "s", Confine: c})
	if !errors.Is(err, syscall.EPERM) || !strings.Contains(err.Error(), "act as the worker's user") {
		t.Errorf("got %v", err)
	}
}

func TestWalkBeneath(t *testing.T) {
	noLeaks(t)
	c, outside := confinement(t)
	if err := os.Symlink(outside, filepath.Join(c.Directory, "link")); err != nil {
		t.Fatal(err)
	}
	root, err := unix.Open(c.Directory, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(root)
	for path, want := range map[string]error{".": nil, "sub": nil, "link": unix.ELOOP, "..": unix.EXDEV, "no": unix.ENOENT} {
		for _, open := range []func(int, string) (int, error){openBeneath, walkBeneath} {
			fd, err := open(root, path)
			if err != want {
				t.Errorf("%s: %v, want %v", path, err, want)
			}
			if err == nil {
				_ = unix.Close(fd)
			}
		}
	}
}
