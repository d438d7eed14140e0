package census

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// reader reads /proc. Its buffers are used again and again: a descriptor of a
// process costs one readlinkat(2) and no allocation.
type reader struct {
	names [32 << 10]byte
	link  [64]byte // "socket:[4294967295]" and "anon_inode:[eventpoll]" fit; what is cut is none of them
	text  [1 << 10]byte
}

// descriptors calls do with each open descriptor of a process and what its link
// says, valid until do returns. base is "/proc/PID", or "/proc/PID/task/TID" when
// the first thread has ended and others go on: then only that has descriptors. A
// process that ends, or has ended, is no error, and then base may be "".
//
// Errors: EACCES or EPERM when we may not know; what else the kernel says.
func (r *reader) descriptors(pid int, do func(fd int, target []byte)) (base string, err error) {
	base = procPath(pid)
	some, err := r.links(base+"/fd", do)
	if some && err == nil {
		return base, nil
	}
	switch p, perr := r.process(base); {
	case perr != nil && isHidden(pid, perr):
		return "", unix.EACCES
	case perr != nil && isGone(perr), perr == nil && p.ended() && p.threads <= 1:
		return "", nil
	case perr == nil && p.ended(): // the first thread only
		if base, err = r.otherThread(pid); base != "" {
			_, err = r.links(base+"/fd", do)
		}
		if base == "" && err == nil || base != "" && r.hasEnded(base) {
			return "", nil
		}
	}
	if isGone(err) {
		err = nil
	}
	return base, err
}

// advice is what an operator can do about an error.
func advice(err error) string {
	if isDenied(err) {
		return " (run the worker as the user of the master, or grant the master CAP_SYS_PTRACE)"
	}
	return ""
}

// links reads the links of a directory of descriptors, and reports whether there
// was any entry.
func (r *reader) links(path string, do func(fd int, target []byte)) (some bool, err error) {
	dir, err := openDir(path)
	if err != nil {
		return false, err
	}
	defer func() { _ = unix.Close(dir) }()
	var denied error
	err = r.each(dir, func(number int, name *byte) {
		some = true
		n, _, errno := unix.Syscall6(unix.SYS_READLINKAT, uintptr(dir), uintptr(unsafe.Pointer(name)),
			uintptr(unsafe.Pointer(&r.link[0])), uintptr(len(r.link)), 0, 0)
		switch errno {
		case 0:
			do(number, r.link[:n])
		case unix.ENOENT, unix.ESRCH: // closed meanwhile
		default:
			denied = errno
		}
	})
	if err == nil {
		err = denied
	}
	return some, err
}

// otherThread returns the directory of a thread that is not the first, or "".
func (r *reader) otherThread(pid int) (string, error) {
	tasks := procPath(pid) + "/task"
	dir, err := openDir(tasks)
	if err != nil {
		return "", err
	}
	defer func() { _ = unix.Close(dir) }()
	var other string
	err = r.each(dir, func(tid int, _ *byte) {
		if tid != pid {
			other = tasks + "/" + strconv.Itoa(tid)
		}
	})
	return other, err
}

// each calls do with each entry of an open directory whose name is a number, and
// with the name, which ends with NUL. getdents64(2) gives entries of
//
//	u64 inode, s64 offset, u16 length, u8 type, name
func (r *reader) each(dir int, do func(number int, name *byte)) error {
	const length, name = 16, 19
	for {
		n, err := unix.Getdents(dir, r.names[:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n <= 0 {
			return err
		}
		for b := r.names[:n]; len(b) > name; {
			entry := b[:binary.NativeEndian.Uint16(b[length:])]
			b = b[len(entry):]
			if number, rest := number(entry[name:]); rest > 0 && entry[name+rest] == 0 {
				do(int(number), &entry[name])
			}
		}
	}
}

// number reads the decimal number that b begins with, and says how long it is.
func number(b []byte) (n uint64, length int) {
	for length < len(b) && '0' <= b[length] && b[length] <= '9' {
		n = n*10 + uint64(b[length]-'0')
		length++
	}
	return n, length
}

var (
	socketLink = []byte("socket:[")
	epollLink  = []byte("anon_inode:[eventpoll]")
)

// socketInode returns the inode in the link of a socket, or 0.
func socketInode(target []byte) uint64 {
	if !bytes.HasPrefix(target, socketLink) {
		return 0
	}
	ino, _ := number(target[len(socketLink):])
	return ino
}

// small reads a file that fits into the buffer, or the beginning of a longer one.
func (r *reader) small(path string) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(fd) }()
	n, err := unix.Read(fd, r.text[:])
	if err != nil {
		return nil, err
	}
	return r.text[:n], nil
}

func openDir(path string) (int, error) {
	return unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
}

func procPath(pid int) string { return "/proc/" + strconv.Itoa(pid) }

// isGone is what /proc says of a process that has ended.
func isGone(err error) bool { return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) }

// isHidden tells apart who has ended from who /proc does not show us: hidepid.
func isHidden(pid int, err error) bool {
	return isDenied(err) || isGone(err) && !errors.Is(unix.Kill(pid, 0), unix.ESRCH)
}

func isDenied(err error) bool { return errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) }
