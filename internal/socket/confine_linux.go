package socket

import (
	"errors"
	"path/filepath"
	"runtime"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
	"github.com/f72e338e/supervisord/internal/proto"
)

// bindConfined binds a path that a worker named. Everything that touches the
// file system is done by a thread with the worker's file system identity
// (setfsuid(2)), so that the kernel judges each step as it would judge the
// worker: whatever the worker changes in its directory meanwhile, it gains
// nothing it could not do by itself.
//
// The thread is never given back to the runtime but ends with the goroutine: a
// thread that failed to become itself again would be worse than a lost one.
func bindConfined(spec proto.SocketSpec) (f *fdpass.File, b proto.Bound, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		onOwnThread(func() { f, b, err = bindAs(spec) })
	}()
	<-done
	return f, b, err
}

// onOwnThread runs fn on a thread that ends afterwards, and never on the main
// thread: the runtime cannot end that, and /proc/PID shows its identity.
func onOwnThread(fn func()) {
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() {
		fn()
		return // locked still: the runtime ends the thread
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		onOwnThread(fn)
	}()
	<-done
	runtime.UnlockOSThread()
}

func bindAs(spec proto.SocketSpec) (*fdpass.File, proto.Bound, error) {
	c := spec.Confine
	path := spec.Address
	if !filepath.IsAbs(path) {
		path = filepath.Join(c.Directory, path)
	}
	path = filepath.Clean(path)
	relative, err := filepath.Rel(c.Directory, path)
	if err != nil || relative == "." || relative == ".." || strings.HasPrefix(relative, "../") {
		return nil, proto.Bound{}, fail(spec, "bind", unix.EACCES, "it lies outside of "+c.Directory)
	}
	if len(path) > maxPath {
		return nil, proto.Bound{}, tooLong(spec, path)
	}
	if err := become(c.UID, c.GID); err != nil {
		return nil, proto.Bound{}, failAt(spec, "act as the worker's user to bind", path, err, "")
	}
	root, err := unix.Open(c.Directory, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, proto.Bound{}, failAt(spec, "bind", path, err, "opening the directory "+c.Directory)
	}
	defer unix.Close(root)
	parent, err := openBeneath(root, filepath.Dir(relative))
	if err != nil {
		hint := ""
		if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.EXDEV) {
			err, hint = unix.EACCES, "its directory is reached through a link, or lies outside of "+c.Directory
		}
		return nil, proto.Bound{}, failAt(spec, "bind", path, err, hint)
	}
	defer unix.Close(parent)
	dir, err := openDirectory(parent, ".")
	if err != nil {
		return nil, proto.Bound{}, failAt(spec, "bind", path, err, "")
	}
	defer dir.Close()
	return bindPath(spec, dir, path)
}

// openBeneath opens the directory path below root and follows no link
// (openat2(2); before Linux 5.6, or where a filter forbids that call, one
// component at a time). It returns an O_PATH descriptor. Errors: ELOOP or EXDEV
// when the path leaves root or holds a link.
func openBeneath(root int, path string) (int, error) {
	fd, err := unix.Openat2(root, path, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != unix.ENOSYS && err != unix.EPERM {
		return fd, err
	}
	return walkBeneath(root, path)
}

// walkBeneath is openBeneath for a path that was cleaned: it holds no "..".
func walkBeneath(root int, path string) (int, error) {
	fd, err := unix.Openat(root, ".", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	for name := range strings.SplitSeq(path, "/") {
		if err != nil {
			break
		}
		if name == ".." {
			_ = unix.Close(fd)
			return -1, unix.EXDEV
		}
		var next int
		// O_NOFOLLOW with O_DIRECTORY gives ENOTDIR at a link.
		next, err = unix.Openat(fd, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if errors.Is(err, unix.ENOTDIR) && isLink(fd, name) {
			err = unix.ELOOP
		}
		_ = unix.Close(fd)
		fd = next
	}
	return fd, err
}

func isLink(dir int, name string) bool {
	var st unix.Stat_t
	err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	return err == nil && st.Mode&unix.S_IFMT == unix.S_IFLNK
}

// become gives the calling thread, and only that, the file system identity of a
// user, without supplementary groups. A user other than root loses the
// capabilities over files with it (capabilities(7), "Effect of user ID changes").
// Errors: EPERM when we may not.
func become(uid, gid int) error {
	if uid == unix.Geteuid() && gid == unix.Getegid() {
		return nil
	}
	// The kernel clears the dumpable flag of the whole process at any change of
	// fsuid; the process itself has not changed.
	dumpable, derr := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	if derr == nil && dumpable == 1 {
		defer func() { _ = unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0) }()
	}
	// The raw call, because Go's Setgroups changes every thread.
	var none uint32
	if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, 0, uintptr(unsafe.Pointer(&none)), 0); errno != 0 {
		return errno
	}
	// setfs*id(2) report no failure; asking again with -1 tells what is in force.
	_ = unix.Setfsgid(gid)
	if now, _ := unix.SetfsgidRetGid(-1); now != gid {
		return unix.EPERM
	}
	_ = unix.Setfsuid(uid)
	if now, _ := unix.SetfsuidRetUid(-1); now != uid {
		return unix.EPERM
	}
	return nil
}
