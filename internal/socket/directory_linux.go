package socket

import (
	"errors"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// lockWait bounds the wait for the lock of a directory. Whoever may read the
// directory, a worker for instance, can hold that lock for ever.
const lockWait = time.Second

// directory holds the parent of a path open while the path is worked on.
type directory struct {
	fd     int
	fixed  bool // opened O_PATH: cannot be locked
	locked bool
}

// openDirectory opens path below at for locking, or O_PATH when it may be
// searched but not read.
func openDirectory(at int, path string) (*directory, error) {
	fd, err := unix.Openat(at, path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.EACCES) {
		fd, err = unix.Openat(at, path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		return &directory{fd: fd, fixed: true}, err
	}
	return &directory{fd: fd}, err
}

// Close also gives the lock back.
func (d *directory) Close() { _ = unix.Close(d.fd) }

// lock tries for lockWait to lock the directory against other masters (flock(2));
// without it a fresh path can still be bound, but a stale one is not touched.
func (d *directory) lock() {
	if d.fixed || d.locked {
		return
	}
	for end := time.Now().Add(lockWait); ; time.Sleep(5 * time.Millisecond) {
		err := unix.Flock(d.fd, unix.LOCK_EX|unix.LOCK_NB)
		if d.locked = err == nil; d.locked || (err != unix.EWOULDBLOCK && err != unix.EINTR) || time.Now().After(end) {
			return
		}
	}
}

// unlink removes name if it has this device and inode. Errors: ENOENT,
// ErrForeign, what unlinkat(2) gives.
func (d *directory) unlink(name string, device, inode uint64) error {
	var st unix.Stat_t
	if err := unix.Fstatat(d.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if uint64(st.Dev) != device || st.Ino != inode {
		return ErrForeign
	}
	return unix.Unlinkat(d.fd, name, 0)
}

// chmodPath changes the mode of an O_PATH descriptor: fchmodat2(2) from Linux
// 6.6 on, through /proc before.
func chmodPath(fd int, mode uint32) error {
	err := unix.Fchmodat(fd, "", mode, unix.AT_EMPTY_PATH)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return unix.Chmod("/proc/self/fd/"+strconv.Itoa(fd), mode)
	}
	return err
}
