package census

import (
	"encoding/binary"
	"errors"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Calls that are the same on all architectures; those of one are in a file of its
// own.
var (
	polls    = append([]int{unix.SYS_PPOLL}, oldPolls...)
	selects  = append([]int{unix.SYS_PSELECT6}, oldSelects...)
	accepts  = append([]int{unix.SYS_ACCEPT4}, oldAccepts...)
	receives = []int{unix.SYS_RECVFROM, unix.SYS_RECVMSG, unix.SYS_RECVMMSG, unix.SYS_READ, unix.SYS_READV}
)

// mostFDs is more than a process can have descriptors to wait for: an argument that
// is larger is no number of descriptors.
const mostFDs = 1 << 20

// call is a system call that a thread is in.
type call struct {
	number int
	args   [3]uint64
}

// threads looks whether a thread of the process waits for the socket in a system
// call.
func (w *watch) threads(pid int) (how string, err error) {
	tasks := procPath(pid) + "/task"
	dir, err := openDir(tasks)
	if err != nil {
		return "", err
	}
	defer func() { _ = unix.Close(dir) }()
	var failed error
	err = w.reader.each(dir, func(tid int, _ *byte) {
		if how != "" {
			return
		}
		var terr error
		how, terr = w.thread(tid, tasks+"/"+strconv.Itoa(tid))
		failed = firstError(failed, terr)
	})
	return how, firstError(failed, err)
}

func (w *watch) thread(tid int, base string) (how string, err error) {
	text, err := w.reader.small(base + "/syscall")
	if err != nil {
		if w.reader.hasEnded(base) {
			err = nil
		}
		return "", err
	}
	c, ok := parseCall(string(text))
	if !ok {
		return "", nil
	}
	found := false
	switch is := func(numbers []int) bool { return slices.Contains(numbers, c.number) }; {
	case is(accepts):
		how, found = byAccept, w.has(c.args[0])
	case is(receives):
		how, found = byReceive, w.socket.kind == unix.SOCK_DGRAM && w.has(c.args[0])
	case is(polls):
		how = byPoll
		found, err = w.inPoll(tid, c)
	case is(selects):
		how = bySelect
		found, err = w.inSelect(tid, c)
	}
	if !found {
		return "", err
	}
	return how, nil
}

// parseCall reads /proc/PID/task/TID/syscall, which is "running", or "-1 SP PC" in
// no call, or the number of the call, six arguments, SP and PC. proc_pid_syscall(5)
func parseCall(text string) (call, bool) {
	words := strings.Fields(text)
	if len(words) < 9 {
		return call{}, false
	}
	number, err := strconv.Atoi(words[0])
	c := call{number: number}
	for i := range c.args {
		var aerr error
		c.args[i], aerr = strconv.ParseUint(words[i+1], 0, 64)
		err = errors.Join(err, aerr)
	}
	return c, err == nil
}

// has says whether an argument is a descriptor of the socket. The kernel takes the
// lower half of the register.
func (w *watch) has(fd uint64) bool { return slices.Contains(w.fds, int(int32(fd))) }

// Of struct pollfd, which is int32 fd, int16 events, int16 revents.
const (
	pollSize  = 8
	pollInput = unix.POLLIN | 0x40 // POLLRDNORM
	pollKnown = 0x37ff             // all of asm-generic/poll.h
)

// inPoll looks for the socket in the array of poll(fds, n). One that makes no sense
// is of another call: see oldPolls.
func (w *watch) inPoll(tid int, c call) (bool, error) {
	at, n := c.args[0], c.args[1]
	if n > mostFDs {
		return false, nil
	}
	found := false
	for left := int(n) * pollSize; left > 0; {
		b, err := w.read(tid, at, left)
		if len(b) < pollSize || err != nil {
			return false, err
		}
		b = b[:len(b)/pollSize*pollSize]
		at, left = at+uint64(len(b)), left-len(b)
		for ; len(b) > 0; b = b[pollSize:] {
			fd, events := int32(binary.NativeEndian.Uint32(b)), binary.NativeEndian.Uint16(b[4:])
			if fd >= mostFDs || fd >= 0 && events&^pollKnown != 0 {
				return false, nil
			}
			found = found || events&pollInput != 0 && w.has(uint64(fd))
		}
	}
	return found, nil
}

// inSelect looks for the socket in the set of select(n, readfds), an array of long
// with a bit a descriptor.
func (w *watch) inSelect(tid int, c call) (bool, error) {
	n, at := c.args[0], c.args[1]
	if n > mostFDs || at == 0 {
		return false, nil
	}
	const word = strconv.IntSize / 8 // of long
	for _, fd := range w.fds {
		if uint64(fd) >= n {
			continue
		}
		b, err := w.read(tid, at+uint64(fd/8/word*word), word)
		if len(b) < word || err != nil {
			return false, err
		}
		bits := uint64(binary.NativeEndian.Uint32(b))
		if word == 8 {
			bits = binary.NativeEndian.Uint64(b)
		}
		if bits>>(fd%(8*word))&1 == 1 {
			return true, nil
		}
	}
	return false, nil
}

// read reads the memory of a thread, up to n bytes or what fits into the buffer. A
// thread that has gone on, and its memory with it, gives none. process_vm_readv(2)
func (w *watch) read(tid int, at uint64, n int) ([]byte, error) {
	b := w.buffer()
	b = b[:min(n, len(b))]
	local := []unix.Iovec{{Base: &b[0]}}
	local[0].SetLen(len(b))
	n, err := unix.ProcessVMReadv(tid, local, []unix.RemoteIovec{{Base: uintptr(at), Len: len(b)}}, 0)
	if errors.Is(err, unix.EFAULT) || errors.Is(err, unix.ESRCH) {
		return nil, nil
	}
	return b[:max(n, 0)], err
}
