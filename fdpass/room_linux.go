package fdpass

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// HasRoom reports whether this process can open n descriptors more. recvmsg(2)
// drops the files it has no number for, and whoever sent them may have no other
// copy; a connection is reset by that, so one asks before.
//
// New descriptors get the lowest free number (open(2)), so the highest ones below
// RLIMIT_NOFILE are looked at first; that they are free tells nothing of others, which
// may have been closed since. poll(2) says which are free without opening any: a
// microsecond for 16 of them, 10 us for each thousand near the limit. Where it cannot
// be told the answer is yes.
func HasRoom(n int) bool {
	if n <= 0 {
		return true
	}
	var limit unix.Rlimit
	_, _, errno := unix.RawSyscall6(unix.SYS_PRLIMIT64, 0, unix.RLIMIT_NOFILE, 0, uintptr(unsafe.Pointer(&limit)), 0, 0)
	if errno != 0 {
		return true
	}
	top := int(min(limit.Cur, 1<<31-1))
	for some := n; top > 0; some = atOnce {
		some = min(some, top, atOnce)
		free, ok := unused(top, some)
		if n -= free; !ok || n <= 0 {
			return true
		}
		top -= some
	}
	return false
}

// atOnce is how many descriptors are looked at in one system call.
const atOnce = 64

// unused returns how many are free of some numbers below top, at most atOnce; false
// when it cannot be told.
func unused(top, some int) (free int, ok bool) {
	var fds [atOnce]unix.PollFd
	for i := range fds[:some] {
		fds[i].Fd = int32(top - 1 - i)
	}
	var now unix.Timespec
	_, _, errno := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&fds[0])), uintptr(some), uintptr(unsafe.Pointer(&now)), 0, 0, 0)
	if errno != 0 && errno != unix.EINTR {
		return 0, false // EINVAL: fewer than that are allowed
	}
	for _, f := range fds[:some] {
		if f.Revents&unix.POLLNVAL != 0 {
			free++
		}
	}
	return free, true
}
