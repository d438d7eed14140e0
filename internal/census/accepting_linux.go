package census

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// How a process waits for connections, as Accepting says it.
const (
	byEpoll   = "epoll"   // the socket is in an epoll set of the process
	byAccept  = "accept"  // a thread is in accept(2)
	byPoll    = "poll"    // a thread is in poll(2) or ppoll(2)
	bySelect  = "select"  // a thread is in select(2) or pselect(2)
	byReceive = "receive" // a thread reads from the socket, of datagrams
)

// Accepting says whether some process of a tree waits for connections on the socket
// at this moment, or for datagrams, and how: "epoll", "accept", "poll", "select" or
// "receive"; "" when none does.
//
// A socket in an epoll set, asked for input, counts whether or not a thread is in
// epoll_wait(2): a program with an event loop is busy now and then. Without epoll a
// worker that handles a request waits for nothing, so "" may be another answer a
// moment later. A stopped process (SIGSTOP) waits as it did before. What cannot be
// seen is in the description of the package.
//
// It does not block, and does not stop the process. While the kernel writes down an
// epoll set the process cannot use it, for about half a microsecond an entry.
//
// Errors, when none was seen to wait: EACCES or EPERM when a process that could have
// may not be looked at. Without epoll the rights are those of PTRACE_MODE_ATTACH,
// for /proc/PID/syscall and process_vm_readv(2), which security modules narrow
// further (kernel.yama.ptrace_scope).
func Accepting(s Socket, tree []int) (how string, err error) {
	w := watch{socket: s}
	for _, pid := range tree {
		how, werr := w.process(pid)
		if how != "" {
			return how, nil
		}
		if err == nil && werr != nil && !isGone(werr) {
			err = fmt.Errorf("cannot see whether process %d accepts: %w%s", pid, werr, advice(werr))
		}
	}
	return "", err
}

// watch is one call of Accepting.
type watch struct {
	reader reader
	socket Socket
	fds    []int // of the socket, in the process that is looked at
	epolls []int
	memory []byte
}

func (w *watch) process(pid int) (how string, err error) {
	w.fds, w.epolls = w.fds[:0], w.epolls[:0]
	base, err := w.reader.descriptors(pid, func(fd int, target []byte) {
		switch {
		case socketInode(target) == w.socket.ino:
			w.fds = append(w.fds, fd)
		case bytes.Equal(target, epollLink):
			w.epolls = append(w.epolls, fd)
		}
	})
	if err != nil || len(w.fds) == 0 {
		return "", err
	}
	for _, epoll := range w.epolls {
		found, eerr := w.inEpoll(base + "/fdinfo/" + strconv.Itoa(epoll))
		if found {
			return byEpoll, nil
		}
		if isDenied(eerr) && w.reader.hasEnded(base) {
			return "", nil
		}
		err = firstError(err, eerr)
	}
	how, terr := w.threads(pid)
	return how, firstError(err, terr)
}

// firstError returns a, or when there was none b; that something is gone is none.
func firstError(a, b error) error {
	if a == nil && b != nil && !isGone(b) {
		return b
	}
	return a
}

// inEpoll looks for the socket in an epoll set, of which fdinfo has a line for each
// entry, in numbers of various bases (proc_pid_fdinfo(5)):
//
//	tfd:        7 events:       19 data:        7  pos:0 ino:2f53 sdev:8
//
// The number must be one of the process's own: an entry outlives its descriptor for
// as long as somebody, as here the master, has the socket open.
func (w *watch) inEpoll(path string) (bool, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, err
	}
	defer func() { _ = unix.Close(fd) }()
	buf := w.buffer()
	for kept := 0; ; {
		n, err := unix.Read(fd, buf[kept:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			return false, err
		}
		rest := buf[:kept+n]
		for {
			line, after, whole := bytes.Cut(rest, []byte{'\n'})
			if !whole {
				break
			}
			if rest = after; w.isEntry(line) {
				return true, nil
			}
		}
		if kept = copy(buf, rest); kept == len(buf) {
			return false, errors.New("fdinfo of epoll: line not understood")
		}
	}
}

func (w *watch) isEntry(line []byte) bool {
	if !bytes.HasPrefix(line, []byte("tfd:")) {
		return false
	}
	fd, _ := value(line, "tfd:", 10)
	if !slices.Contains(w.fds, int(fd)) {
		return false
	}
	events, ok := value(line, "events:", 16)
	if !ok || events&(unix.EPOLLIN|unix.EPOLLRDNORM) == 0 {
		return false
	}
	ino, ok := value(line, "ino:", 16)
	return ok && ino == w.socket.ino
}

// value reads the number behind a label.
func value(line []byte, label string, base int) (uint64, bool) {
	_, rest, found := bytes.Cut(line, []byte(label))
	word, _, _ := bytes.Cut(bytes.TrimLeft(rest, " "), []byte{' '})
	n, err := strconv.ParseUint(string(word), base, 64)
	return n, found && err == nil
}

// buffer is for what is long, and valid until the next call.
func (w *watch) buffer() []byte {
	if w.memory == nil {
		w.memory = make([]byte, 64<<10)
	}
	return w.memory
}
