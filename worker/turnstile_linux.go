package worker

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// turnstile lets the kernel wake one worker for a connection on a shared socket,
// and only one that has time for it.
//
// The runtime waits for every socket in one epoll set, and there every connection
// wakes every worker: all but one find nothing, and which one wins is chance. So
// the listening socket is registered with EPOLLEXCLUSIVE (epoll_ctl(2)) instead, in
// the runtime's own set and with the runtime's own data, which /proc/self/fdinfo
// tells (proc(5)). The set must be the runtime's: the kernel passes over a set that
// nobody waits in at the moment, and nobody waits in the runtime's while all its
// processors are busy. A set of our own with a thread of its own would always be
// waited in, and take connections into workers that have no time for them.
//
// The socket is registered only while a goroutine is in Accept: a worker that does
// not want a connection is not woken for one, which nobody else would be then. And
// since a new registration goes to the end of the kernel's queue, the workers that
// have time take turns.
//
//	enter: EPOLL_CTL_ADD ──▶ accept4, wait, accept4 ──▶ leave: EPOLL_CTL_DEL
//
// A wake-up that a worker got and did not act on, because it died, is made good by
// the supervisor (proto.Look), and at the latest by the next connection.
type turnstile struct {
	epfd int
	raw  syscall.RawConn

	mu      sync.Mutex
	event   unix.EpollEvent // as it was added last
	inside  int             // goroutines in Accept
	present bool            // registered
	since   time.Time       // when, while loop
	loop    bool            // see loops
	open    bool            // registered for good, as the runtime does it

	op      int // of control
	err     error
	control func(fd uintptr) // allocated once
}

// What the turnstile registers, and what the runtime does (netpoll_epoll.go).
const (
	exclusively = unix.EPOLLIN | unix.EPOLLEXCLUSIVE | unix.EPOLLET&0xffffffff
	asRuntime   = unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET&0xffffffff
)

// turnEvery is how long a worker that comes back to Accept at once keeps its place
// in the kernel's queue.
const turnEvery = time.Millisecond

// newTurnstile takes the socket out of the runtime's set until somebody enters.
// Without /proc, or with a runtime that waits in another way, it returns nil, whose
// methods do nothing: then all is as the net package does it.
func newTurnstile(c syscall.Conn) *turnstile {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil
	}
	t := &turnstile{raw: raw, epfd: -1}
	t.control = func(fd uintptr) { t.err = unix.EpollCtl(t.epfd, t.op, int(fd), &t.event) }
	_ = raw.Control(func(fd uintptr) { t.epfd, t.event = registered(int(fd)) })
	if t.epfd < 0 || t.ctl(unix.EPOLL_CTL_DEL, 0) != nil {
		return nil
	}
	return t
}

// loops says that whoever calls Accept comes back at once, but for errors and when
// away is called. Then the registration may stay in between.
func (t *turnstile) loops() {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.loop = true
}

// enter registers the socket, if nobody has yet.
func (t *turnstile) enter() {
	if t == nil {
		return
	}
	t.mu.Lock()
	t.inside++
	switch {
	case !t.present:
		t.add()
	case t.loop && t.inside == 1 && !t.open && time.Since(t.since) > turnEvery:
		t.del()
		t.add()
	}
	t.mu.Unlock()
}

// leave goes out of the kernel's queue, or to its end while others are inside.
func (t *turnstile) leave(failed bool) {
	if t == nil {
		return
	}
	t.mu.Lock()
	t.inside--
	if !t.open && (failed || !t.loop) {
		t.del()
		if t.inside > 0 {
			t.add()
		}
	}
	t.mu.Unlock()
}

// away says that whoever loops does not come back at once this time.
func (t *turnstile) away() {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.inside == 0 && !t.open {
		t.del()
	}
}

// look makes whoever waits in Accept look at the queue: a new registration tells
// what is there already.
func (t *turnstile) look() {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.present && !t.open {
		t.del()
		t.add()
	}
}

// stay registers the socket as the runtime does, for good: the worker is about to
// leave, and no connection that comes from here on may wake it alone.
func (t *turnstile) stay() {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.del()
	t.open = true
	_ = t.ctl(unix.EPOLL_CTL_ADD, asRuntime)
}

// add registers the socket; mu is held.
func (t *turnstile) add() {
	if err := t.ctl(unix.EPOLL_CTL_ADD, exclusively); err != nil && !errors.Is(err, os.ErrClosed) {
		t.open = true // ENOMEM, ENOSPC: do as the runtime does, if that is possible
		_ = t.ctl(unix.EPOLL_CTL_ADD, asRuntime)
	}
	t.present = true
	if t.loop {
		t.since = time.Now()
	}
}

func (t *turnstile) del() {
	if t.present {
		_ = t.ctl(unix.EPOLL_CTL_DEL, 0)
		t.present = false
	}
}

// ctl changes the registration. A socket that was closed is left alone: its number
// may be another file's.
func (t *turnstile) ctl(op int, events uint32) error {
	t.op, t.event.Events = op, events
	if t.raw.Control(t.control) != nil {
		return os.ErrClosed
	}
	return t.err
}

// registered finds the epoll set of this process in which fd is, and with which
// data; the set is -1 when there is none or more than one.
func registered(fd int) (epfd int, data unix.EpollEvent) {
	epfd = -1
	dir, err := os.Open("/proc/self/fd")
	if err != nil {
		return -1, data
	}
	defer func() { _ = dir.Close() }()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return -1, data
	}
	for _, name := range names {
		if to, err := os.Readlink("/proc/self/fd/" + name); err != nil || to != "anon_inode:[eventpoll]" {
			continue
		}
		ev, ok := entryOf("/proc/self/fdinfo/"+name, fd)
		if !ok {
			continue
		}
		if epfd >= 0 {
			return -1, data
		}
		if _, err := fmt.Sscan(name, &epfd); err != nil {
			return -1, data
		}
		data = ev
	}
	return epfd, data
}

// entryOf reads the line of fd in the fdinfo of an epoll set:
//
//	tfd:        9 events: 8000201d data: 7f0c2a7b1e28a001  pos:0 ino:5c sdev:8
func entryOf(path string, fd int) (ev unix.EpollEvent, ok bool) {
	f, err := os.Open(path)
	if err != nil {
		return ev, false
	}
	defer func() { _ = f.Close() }()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var n int
		var events uint32
		var data uint64
		if !strings.HasPrefix(lines.Text(), "tfd:") {
			continue
		}
		if _, err := fmt.Sscanf(lines.Text(), "tfd: %d events: %x data: %x", &n, &events, &data); err == nil && n == fd {
			return unix.EpollEvent{Fd: int32(uint32(data)), Pad: int32(uint32(data >> 32))}, true
		}
	}
	return ev, false
}
