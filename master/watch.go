package master

import (
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
	"github.com/f72e338e/supervisord/internal/proto"
)

// watch is told by the kernel when a holder has shut a listening socket down. It
// has an epoll set of all of them, without EPOLLIN: the kernel looks at what a set
// wants before it wakes anybody (ep_poll_callback in fs/eventpoll.c), so that
// connections cost the master nothing. The runtime's poller waits for the set.
//
// epoll(7): an entry belongs to the open file, which workers keep open, so it does
// not go when we close our descriptor; remove comes before that.
type watch struct {
	file  *os.File
	raw   syscall.RawConn
	wakes atomic.Uint64 // how often the goroutine was woken

	mu      sync.Mutex
	last    int32
	sockets map[int32]watched // by the number that the kernel gives back
}

// watched says whose socket it is.
type watched struct {
	handle proto.HandleID
	member int
	file   *fdpass.File // borrowed
}

// Edge-triggered: a socket that stays dead is told of once. Of a Unix socket that is
// shut for reading the kernel reports RDHUP; HUP and ERR it reports in any case.
const shutEvents = unix.EPOLLRDHUP | unix.EPOLLET&0xffffffff

// newWatch makes the set. Nobody waits for it before run. Errors: EMFILE, ENFILE.
func newWatch() (*watch, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err == nil {
		if err = unix.SetNonblock(fd, true); err != nil { // what os.NewFile asks of a file that can be polled
			_ = unix.Close(fd)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("cannot watch sockets: %w", err)
	}
	w := &watch{file: os.NewFile(uintptr(fd), "watch"), sockets: map[int32]watched{}}
	if w.raw, err = w.file.SyscallConn(); err != nil {
		_ = w.file.Close()
		return nil, err
	}
	return w, nil
}

// add watches a stream socket that listens, which it borrows until remove. Where
// the kernel refuses (ENOMEM, ENOSPC) harm is found only when somebody looks.
func (w *watch) add(handle proto.HandleID, member int, f *fdpass.File) error {
	w.mu.Lock()
	w.last++
	id := w.last
	w.sockets[id] = watched{handle, member, f}
	w.mu.Unlock()
	err := w.control(unix.EPOLL_CTL_ADD, f, id)
	if err != nil {
		w.mu.Lock()
		delete(w.sockets, id)
		w.mu.Unlock()
	}
	return err
}

// remove forgets a socket; it must be open still.
func (w *watch) remove(f *fdpass.File) {
	_ = w.control(unix.EPOLL_CTL_DEL, f, 0)
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, s := range w.sockets {
		if s.file == f {
			delete(w.sockets, id)
		}
	}
}

func (w *watch) control(op int, f *fdpass.File, id int32) error {
	var err error
	cerr := w.raw.Control(func(set uintptr) {
		err = unix.EpollCtl(int(set), op, f.Fd(), &unix.EpollEvent{Events: shutEvents, Fd: id})
	})
	if cerr != nil {
		return cerr
	}
	return err
}

// run tells of each socket that is shut down, until close.
func (w *watch) run(tell func(watched)) {
	events := make([]unix.EpollEvent, 16)
	for {
		var n int
		err := w.raw.Read(func(set uintptr) bool {
			w.wakes.Add(1)
			n, _ = unix.EpollWait(int(set), events, 0)
			return n > 0
		})
		if err != nil {
			return
		}
		for _, ev := range events[:n] {
			w.mu.Lock()
			s, ok := w.sockets[ev.Fd]
			w.mu.Unlock()
			if ok {
				tell(s)
			}
		}
	}
}

func (w *watch) close() { _ = w.file.Close() }
