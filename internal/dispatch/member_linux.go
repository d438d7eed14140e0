package dispatch

import (
	"fmt"
	"slices"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
	"github.com/f72e338e/supervisord/internal/proto"
)

// member is one worker's part in one handle.
type member struct {
	h        *handle
	worker   uint64
	part     uint64
	slot     int
	fd       int // channel
	far      int // the worker's end of it
	at       int32
	page     []byte       // of the worker's counts; nil when it keeps none
	file     *fdpass.File // that is mapped there
	admitted bool         // ready, and not on its way out
	leaving  bool         // it goes as soon as what it has not read is taken back
	limit    int64        // see Member.Limit
	full     bool         // wants no more until it says that it has room
	blocked  bool         // for a lack of memory or descriptors, until all is tried again
	given    int64        // connections chosen for it, see inTurn
	handed   int64        // connections that it was sent, without those taken back
	batch    []conn       // chosen for it, not sent yet
	most     int          // so many at once; less when it was full with as many

	unread bool      // there is a message in its channel, for all we know
	out    []conn    // what came with that, without descriptors
	since  time.Time // when it was sent
	looked uint64    // the round in which it was found unread
	listed bool      // in Dispatcher.unread
	late   bool      // it has not read for patience
	armed  bool      // epoll tells when it reads

	taking   bool // what it has not read is being taken back
	relieved bool // because it was late
	gone     bool // and it is no member any more: far is closed after that

	peer  *peer         // it has no channel of its own; out is then what it was offered
	key   string        // of the handle, towards the worker
	rest  time.Duration // how long it is left alone after it has refused
	until time.Time     // that is over

	answered time.Time // when it last said what becomes of a connection

	counted int64 // how many connections it had open, see SetOpen
	then    int64 // what it had been handed when it was counted
}

// free reports whether the member may be given another connection now.
func (m *member) free() bool {
	return m.admitted && !m.leaving && !m.full && !m.blocked && len(m.batch) < m.most && m.hasRoom() &&
		(m.peer == nil && m.hasRead() || m.peer != nil && m.mayOffer())
}

// hasRoom reports whether the worker has fewer connections open than it may. That it
// has room again it says itself.
func (m *member) hasRoom() bool { return m.limit == 0 || m.open()+int64(len(m.batch)) < m.limit }

// open is how many connections the worker has open or in its channel: those it was
// handed and, by its own count, those it accepted itself, without those it closed.
// What it says is clamped: a worker that lies gets more or fewer connections, no more.
func (m *member) open() int64 {
	if m.peer != nil {
		return max(0, m.counted+m.handed-m.then)
	}
	if m.page == nil {
		return 0
	}
	counts := m.counts()
	n := m.handed + atomic.LoadInt64(&counts[0]) - atomic.LoadInt64(&counts[1])
	return min(max(n, 0), 1<<40)
}

// counts is the page: what the worker accepted itself, and what it closed.
func (m *member) counts() *[2]int64 { return (*[2]int64)(unsafe.Pointer(&m.page[0])) }

// noted is where the next dispatcher finds how many connections the worker was handed: in
// the same page, and not in the cache line that the worker writes to.
func (m *member) noted() *int64 { return (*int64)(unsafe.Pointer(&m.page[notedAt])) }

const (
	notedAt = 128
	// pageSize is what of a page is used.
	pageSize = notedAt + 8
)

// give notes that n connections more are the worker's.
func (m *member) give(n int64) {
	m.handed += n
	if m.page != nil {
		atomic.StoreInt64(m.noted(), m.handed)
	}
}

// Lend calls use with the files of the part that was given this number, which stay the
// dispatcher's; a number is -1 for a file that there is not. It does not call it when
// there is no such part.
func (d *Dispatcher) Lend(id, part uint64, use func(channel, far, page int)) {
	d.do(func() {
		h := d.handles[id]
		if h == nil {
			return
		}
		for _, m := range h.members {
			if m.part == part && m.peer == nil && !m.gone {
				use(m.fd, m.far, m.file.Fd())
				return
			}
		}
	})
}

// LendPeer is Lend for the channel of a Peer.
func (d *Dispatcher) LendPeer(worker uint64, use func(channel int)) {
	d.do(func() {
		if p := d.peers[worker]; p != nil {
			use(p.fd)
		}
	})
}

// Member is one worker's part in one handle.
type Member struct {
	Worker   uint64       // the id of one worker
	Slot     int          // what source_hash goes by
	Part     uint64       // a number for Lend and Options.Left, unlike any other; 0 = none
	Limit    int64        // how many connections of the handle it may have open, by its page; 0 = any number
	Admitted bool         // it is offered connections at once, not only after Admit
	Channel  *fdpass.File // the master's end
	Far      *fdpass.File // a copy of the worker's end
	Page     *fdpass.File // where the worker counts, or nil. One of an earlier dispatcher is good, too
}

// Join takes a member's files, and offers it connections once it is admitted.
// Errors: no such handle, those of mmap(2) and epoll_ctl(2); the files are closed
// then.
func (d *Dispatcher) Join(id uint64, j Member) (err error) {
	m := &member{file: j.Page, worker: j.Worker, part: j.Part, slot: j.Slot, limit: j.Limit, fd: j.Channel.Release(), far: j.Far.Release(), admitted: j.Admitted, most: d.o.Batch,
		batch: make([]conn, 0, d.o.Batch), out: make([]conn, 0, d.o.Batch), unread: true}
	ran := d.do(func() {
		if m.h = d.handles[id]; m.h == nil {
			err = fmt.Errorf("handle %d is not dispatched", id)
			return
		}
		m.given = m.h.given
		if p := j.Page.Fd(); p >= 0 {
			if m.page, err = unix.Mmap(p, 0, pageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
				err = fmt.Errorf("mmap: %w", err)
				return
			}
			m.handed = atomic.LoadInt64(m.noted())
		}
		m.at = d.place(entry{h: m.h, m: m})
		if err = d.watch(m.fd, m.at, unix.EPOLLIN|unix.EPOLLET); err != nil {
			d.vacate(m.at)
			if m.page != nil {
				_ = unix.Munmap(m.page)
			}
			return
		}
		m.h.members = append(m.h.members, m)
		d.pump(m.h)
	})
	if !ran {
		err = errEnded
	}
	if err != nil {
		_ = unix.Close(m.fd)
		_ = unix.Close(m.far)
		_ = m.file.Close()
	}
	return err
}

// SetOpen says how many connections of a handle a worker with a Peer has open, which
// nobody here can know; what it is handed from now on is added.
func (d *Dispatcher) SetOpen(id, worker uint64, n int64) {
	d.do(func() {
		if h := d.handles[id]; h != nil {
			for _, m := range h.members {
				if m.worker == worker && m.peer != nil {
					m.counted, m.then = n, m.handed
				}
			}
		}
	})
}

// Joined returns the workers that have a channel of a handle.
func (d *Dispatcher) Joined(id uint64) (workers []uint64) {
	d.do(func() {
		if h := d.handles[id]; h != nil {
			for _, m := range h.members {
				if !m.leaving {
					workers = append(workers, m.worker)
				}
			}
		}
	})
	return workers
}

// Admit says whether a worker is offered connections, on every handle: yes from
// when it is ready until it is told to go. What it has not read then goes to another,
// if there is one.
func (d *Dispatcher) Admit(worker uint64, yes bool) {
	d.do(func() {
		for _, h := range d.handles {
			for _, m := range h.members {
				if m.worker != worker {
					continue
				}
				m.admitted = yes
				if !yes && h.another(m) {
					d.takeBack(m)
				}
			}
			d.pump(h)
		}
	})
}

// Leave ends a worker's part in a handle, or with handle 0 in all: the worker gave
// it back, or it is dead. What it has not read goes to another worker.
func (d *Dispatcher) Leave(id, worker uint64) {
	d.do(func() {
		for _, h := range d.handles {
			if id != 0 && h.id != id {
				continue
			}
			for _, m := range slices.Clone(h.members) {
				if m.worker == worker {
					d.dismiss(m)
				}
			}
			d.pump(h)
		}
	})
}

// dismiss takes a member out, as soon as what it has not read is taken back.
func (d *Dispatcher) dismiss(m *member) {
	h := m.h
	m.leaving = true
	h.waiting = append(h.waiting, m.batch...)
	m.batch = m.batch[:0]
	if d.takeBack(m); m.unread {
		return
	}
	i := slices.Index(h.members, m)
	h.members = slices.Delete(h.members, i, i+1)
	if h.turn > i {
		h.turn--
	}
	d.closeMember(m)
	if len(h.waiting) > 0 && !slices.ContainsFunc(h.members, func(m *member) bool { return m.admitted && !m.leaving }) {
		d.o.Stranded(h.id)
	}
}

func (d *Dispatcher) closeMember(m *member) {
	m.gone = true
	if p := m.peer; p != nil {
		m.h.peers--
		p.members = slices.DeleteFunc(p.members, func(o *member) bool { return o == m })
		for i := range p.sent {
			if p.sent[i].m == m {
				p.sent[i].m = nil
			}
		}
		p.stale += len(m.out)
		for _, c := range m.out { // the handle goes, and the worker may have taken it
			p.closeTaken(c.fd)
		}
		d.closeJunk(p)
		return
	}
	m.read()
	if m.listed {
		d.unread = slices.DeleteFunc(d.unread, func(o *member) bool { return o == m })
	}
	d.vacate(m.at)
	_ = unix.EpollCtl(d.ep, unix.EPOLL_CTL_DEL, m.fd, nil) // while discard is under way it is open
	d.discard(m.fd)
	if !m.taking {
		closeRaw(m.far)
	}
	if m.page != nil {
		_ = unix.Munmap(m.page)
	}
	m.page = nil
	_ = m.file.Close()
	if m.part != 0 {
		d.o.Left(m.h.id, m.part)
	}
}

// atOnce is how many words of one worker are heard before others are. A worker that
// keeps to the protocol never says as many.
const atOnce = 64

// told takes note of what epoll says of a member.
func (d *Dispatcher) told(m *member, events uint32) {
	if events&unix.EPOLLOUT != 0 && m.armed && !m.h.waits() {
		d.disarm(m)
	}
	if events&^unix.EPOLLOUT != 0 {
		d.listen(m, atOnce)
	}
}

// listen reads what the worker says until there is nothing more, or so often. A
// worker that breaks the protocol loses its channel.
func (d *Dispatcher) listen(m *member, most int) {
	for range most {
		n, fds, errno := d.scratch.recv(m.fd)
		switch {
		case errno == unix.EAGAIN:
			return
		case errno == unix.EINTR:
			continue
		case errno != 0 || n == 0:
			d.discard(fds...)
			d.dismiss(m)
			return
		}
		s, err := proto.ReadStanding(d.scratch.in[:n])
		if len(fds) > 0 {
			err = fmt.Errorf("%w: %d files with it", proto.ErrBadHandover, len(fds))
			d.discard(fds...)
		}
		if err != nil {
			d.o.Report(m.h.id, m.worker, err)
			d.dismiss(m)
			return
		}
		if m.full = s == proto.Full; m.full {
			m.most = 1 // it may have had room for some
			d.takeBack(m)
		}
	}
	d.rewatch(m) // there may be more, and epoll tells only of what comes
}
