package dispatch

import (
	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
	"github.com/f72e338e/supervisord/internal/proto"
)

// takeBack begins to read back what the worker has not read; it goes to others,
// before what came later. Until that is done the member is busy.
//
// recvmsg(2) holds a lock of the socket while it copies, and the worker decides where
// to: when it reads into memory which does not come (FUSE, userfaultfd(2)), whoever
// else reads there waits until the worker dies. So that is a goroutine's affair.
func (d *Dispatcher) takeBack(m *member) {
	if m.taking || m.blocked || !m.unread || m.peer != nil {
		return
	}
	if !readableNow(m.far) {
		m.read()
		return
	}
	m.taking = true
	d.tired = true // the goroutine is in the queue of the processor that this thread holds
	d.reading.Add(1)
	d.aside.Go(func() {
		defer d.reading.Add(-1)
		t := readBack(m.far, int(d.reading.Load()))
		if !d.do(func() { d.tookBack(m, t) }) {
			t.discard()
			_ = unix.Close(m.far)
		}
	})
}

// taken is what was read back.
type taken struct {
	packets [][]int // the descriptors of each
	all     bool    // nothing was left for a lack of descriptors
}

func (t taken) discard() {
	for _, fds := range t.packets {
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
	}
}

// readBack reads a worker's end of its channel empty. So many do that at this moment.
func readBack(far, readers int) (t taken) {
	var in [proto.HandoverSize + 1]byte
	var ctl [controlSize]byte
	for {
		if !fdpass.HasRoom(readers * proto.MaxHandover) {
			return t
		}
		n, oob, _, _, err := unix.Recvmsg(far, in[:], ctl[:], unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
		switch {
		case err == unix.EINTR:
		case err != nil || n == 0: // EAGAIN, or the worker has shut it down, which this would say for ever
			t.all = true
			return t
		default:
			t.packets = append(t.packets, descriptors(ctl[:oob]))
		}
	}
}

// tookBack takes note of what was read back. What this process has no descriptors for
// is tried again soon. A member that goes on gets a message without connections
// instead of what it did not read: as long as that is unread it is busy.
func (d *Dispatcher) tookBack(m *member, t taken) {
	m.taking = false
	if m.gone {
		closeRaw(m.far)
		d.aside.Go(t.discard)
		return
	}
	var back []conn
	for _, fds := range t.packets {
		back = append(back, m.back(fds)...)
	}
	m.h.waiting = append(back, m.h.waiting...)
	relieved := m.relieved
	m.relieved = false
	if t.all {
		m.read()
	} else {
		m.blocked = true
		d.later()
	}
	switch {
	case m.leaving:
		d.dismiss(m)
	case relieved && t.all && len(back) > 0 && d.scratch.send(m.fd, nil) == 0:
		m.unread, m.looked = true, d.round
	}
	d.pump(m.h)
}

// back is what was in a message that the worker has not read.
func (m *member) back(fds []int) []conn {
	conns := make([]conn, len(fds))
	if len(fds) == len(m.out) { // a message that an earlier dispatcher sent we do not know
		copy(conns, m.out)
		m.out = m.out[:0]
	}
	for i, fd := range fds {
		conns[i].fd = fd
		if conns[i].hash == 0 && m.h.policy == SourceHash {
			conns[i].hash = m.h.d.scratch.hashOf(fd)
		}
	}
	m.h.stats.Returned.Add(uint64(len(fds)))
	m.give(-int64(len(fds)))
	m.given -= int64(len(fds))
	return conns
}
