package dispatch

import (
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
	"github.com/f72e338e/supervisord/internal/proto"
)

// member is one worker's part in one handle.
type member struct {
	h        *handle
	worker   uint64
	slot     int
	fd       int // channel
	at       int32
	page     []byte // of the worker's count; nil when it keeps none
	admitted bool   // ready, and not on its way out
	limit    int64  // see Member.Limit
	full     bool   // refused one; until it says that it has room
	blocked  bool   // its channel could not take a message; until the next try
	given    int64  // connections chosen for it, see inTurn
	batch    []conn // chosen for it, not sent yet
	out      []conn // sent, without a verdict
	first    uint32 // number of out[0]
}

// free reports whether the member may be given another connection now.
func (m *member) free() bool {
	return m.admitted && !m.full && !m.blocked && len(m.out) == 0 && len(m.batch) < cap(m.batch) && m.hasRoom()
}

// hasRoom reports whether the worker has fewer connections open than it may. That it
// has room again it says itself.
func (m *member) hasRoom() bool { return m.limit == 0 || m.open()+int64(len(m.batch)) < m.limit }

// open is how many connections the worker has open, by its own count. What it
// says is clamped: a worker that lies gets more or fewer connections, no more.
func (m *member) open() int64 {
	if m.page == nil {
		return 0
	}
	n := atomic.LoadInt64((*int64)(unsafe.Pointer(&m.page[0])))
	return min(max(n, 0), 1<<40)
}

// Member is one worker's part in one handle.
type Member struct {
	Worker   uint64       // the id of one worker
	Slot     int          // what source_hash goes by
	Limit    int64        // how many connections of the handle it may have open, by its page; 0 = any number
	Admitted bool         // it is offered connections at once, not only after Admit
	Channel  *fdpass.File // the master's end
	Page     *fdpass.File // where the worker counts, or nil
}

// Join takes a member's files, and offers it connections once it is admitted.
// Errors: no such handle, those of mmap(2) and epoll_ctl(2); the files are closed
// then.
func (d *Dispatcher) Join(id uint64, j Member) (err error) {
	defer func() { _ = j.Page.Close() }()
	fd := j.Channel.Release()
	ran := d.do(func() {
		h := d.handles[id]
		if h == nil {
			err = fmt.Errorf("handle %d is not dispatched", id)
			return
		}
		m := &member{h: h, worker: j.Worker, slot: j.Slot, limit: j.Limit, fd: fd, admitted: j.Admitted, given: h.given,
			batch: make([]conn, 0, d.o.Batch), out: make([]conn, 0, d.o.Batch)}
		if p := j.Page.Fd(); p >= 0 {
			if m.page, err = unix.Mmap(p, 0, 8, unix.PROT_READ, unix.MAP_SHARED); err != nil {
				err = fmt.Errorf("mmap: %w", err)
				return
			}
		}
		m.at = d.place(entry{h: h, m: m})
		if err = d.watch(fd, m.at, unix.EPOLLIN); err != nil {
			d.vacate(m.at)
			if m.page != nil {
				_ = unix.Munmap(m.page)
			}
			return
		}
		h.members = append(h.members, m)
		d.pump(h)
	})
	if !ran {
		err = errEnded
	}
	if err != nil {
		_ = unix.Close(fd)
	}
	return err
}

// Joined returns the workers that have a channel of a handle.
func (d *Dispatcher) Joined(id uint64) (workers []uint64) {
	d.do(func() {
		if h := d.handles[id]; h != nil {
			for _, m := range h.members {
				workers = append(workers, m.worker)
			}
		}
	})
	return workers
}

// Admit says whether a worker is offered connections, on every handle: yes from
// when it is ready until it is told to go. What it was sent stays its own.
func (d *Dispatcher) Admit(worker uint64, yes bool) {
	d.do(func() {
		for _, h := range d.handles {
			for _, m := range h.members {
				if m.worker == worker {
					m.admitted = yes
				}
			}
			d.pump(h)
		}
	})
}

// Leave ends a worker's part in a handle, or with handle 0 in all: the worker gave
// it back, or it is dead. Its channel is read to the end first; what has no
// verdict there goes to another worker, and since the channel is closed nobody
// will find it in it any more. Call it for a living worker only when the worker
// has closed its own end.
func (d *Dispatcher) Leave(id, worker uint64) {
	d.do(func() {
		for _, h := range d.handles {
			if id != 0 && h.id != id {
				continue
			}
			for _, m := range slices.Clone(h.members) {
				if m.worker == worker {
					d.verdicts(m, toTheEnd)
					d.gone(m)
				}
			}
			d.pump(h)
		}
	})
}

// gone takes a member out, and its connections without a verdict back.
func (d *Dispatcher) gone(m *member) {
	h := m.h
	i := slices.Index(h.members, m)
	if i < 0 {
		return
	}
	h.members = slices.Delete(h.members, i, i+1)
	if h.turn > i {
		h.turn--
	}
	d.takeBack(m, len(m.out))
	h.waiting = append(h.waiting, m.batch...)
	m.batch = nil
	d.closeMember(m)
}

// takeBack returns the first n connections without a verdict to the handle.
func (d *Dispatcher) takeBack(m *member, n int) {
	m.h.waiting = append(m.h.waiting, m.out[:n]...)
	m.h.stats.Returned.Add(uint64(n))
	m.forget(n)
}

// forget drops the first n connections without a verdict from the list.
func (m *member) forget(n int) {
	m.out = append(m.out[:0], m.out[n:]...)
	m.first += uint32(n)
}

func (d *Dispatcher) closeMember(m *member) {
	d.vacate(m.at)
	closeRaw(m.fd)
	for _, c := range m.out {
		closeRaw(c.fd)
	}
	if m.page != nil {
		_ = unix.Munmap(m.page)
	}
	m.out, m.page = nil, nil
}

// atOnce is how many verdicts of one worker are read before others are heard. A
// worker that keeps to the protocol never has as many.
const atOnce = 64

// toTheEnd is more than the queue of a socket holds (net.unix.max_dgram_qlen), and
// yet an end should a child of a dead worker go on writing.
const toTheEnd = 1 << 16

// verdicts reads what the worker says until there is nothing more, or so often. A
// worker that breaks the protocol loses its channel, as if it had closed it.
func (d *Dispatcher) verdicts(m *member, most int) {
	for range most {
		n, errno := d.scratch.recv(m.fd)
		switch {
		case errno == unix.EAGAIN:
			return
		case errno == unix.EINTR:
			continue
		case errno != 0 || n == 0:
			d.gone(m)
			return
		}
		v, err := proto.ReadVerdict(d.scratch.in[:n])
		if err == nil {
			err = d.verdict(m, v)
		}
		if err != nil {
			d.o.Report(m.h.id, m.worker, err)
			d.gone(m)
			return
		}
		if most == atOnce && len(m.out) == 0 {
			return // nothing more is owed; should there be something, epoll reports it
		}
	}
}

var errStranger = errors.New("a verdict on a connection that was not handed over")

func (d *Dispatcher) verdict(m *member, v proto.Verdict) error {
	if v.What == proto.Room {
		m.full = false
		return nil
	}
	n := int(v.Count)
	if v.First != m.first || n > len(m.out) {
		return errStranger
	}
	if v.What == proto.Refused {
		m.full = true
		d.takeBack(m, n)
		return nil
	}
	for _, c := range m.out[:n] {
		closeRaw(c.fd)
	}
	m.h.stats.Handed.Add(uint64(n))
	m.forget(n)
	return nil
}
