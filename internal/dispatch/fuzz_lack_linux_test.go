package dispatch

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
	"github.com/f72e338e/supervisord/internal/proto"
)

// pass: bit 0 whether a member passes on what it reads from now on, the rest who.
func (w *world) pass(arg int) {
	if m := w.player(arg >> 1); m != nil {
		m.passing = arg&1 != 0
	}
}

// passOn gives a connection that a member has just read, and not touched, to another.
func (w *world) passOn(m *player, fd int) {
	w.identify(m, fd)
	m.at.passed++
	w.counted(m)
	w.must(w.d.Pass(m.at.id, Passed{From: m.worker, Connection: fdpass.NewFile(fd)}))
}

// closeOne lets a member close a connection that it owns.
func (w *world) closeOne(arg int) {
	if m := w.player(arg); m != nil && len(m.owned) > 0 {
		_ = unix.Close(m.owned[0].fd)
		m.owned = m.owned[1:]
		w.counted(m)
	}
}

// counted counts a connection out. A worker that may have so many says that it has
// room.
func (w *world) counted(m *player) {
	if m.page == nil {
		return
	}
	m.closed++
	*(*int64)(unsafe.Pointer(&m.page[8])) = m.closed
	if m.limit > 0 {
		m.full = false
		w.say(m, proto.Room)
	}
}

// starve lets something happen while this process may open nothing, and then again:
// bit 0-1 what and how many clients wait, bit 2 that it may open a few, the rest who.
func (w *world) starve(arg int) {
	m := w.player(arg >> 3)
	if m == nil {
		return
	}
	for range arg & 3 {
		w.connect(int(m.at.id) - 1)
	}
	var limit unix.Rlimit
	w.must(unix.Prlimit(0, unix.RLIMIT_NOFILE, nil, &limit))
	low := unix.Rlimit{Cur: 1, Max: limit.Max}
	if arg&4 != 0 {
		low.Cur = uint64(w.before + 40)
	}
	w.must(unix.Prlimit(0, unix.RLIMIT_NOFILE, &low, nil))
	switch arg & 3 {
	case 0:
		w.admit(arg >> 2)
	case 1:
		w.filled(arg >> 3)
		w.settle()
		m.leftover = m.leftover || readable(m.fd) // it could not be taken back
	case 2:
		w.leave(arg >> 3)
	case 3:
		w.late(0)
	}
	w.settle()
	w.must(unix.Prlimit(0, unix.RLIMIT_NOFILE, &limit, nil))
	for failed := true; failed; {
		w.d.do(func() { // as when the alarm rings
			if failed = w.d.failed; failed {
				w.d.failed = false
				w.d.pumpAll()
			}
		})
		w.settle()
	}
}

// anyTakes reports whether somebody may be given a connection that waits inside.
func (h *handle) anyTakes() bool {
	for _, c := range h.waiting {
		for _, m := range h.members {
			if m.takes(c) {
				return true
			}
		}
	}
	return false
}
