package dispatch

import (
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// later lets everything be tried again soon.
func (d *Dispatcher) later() {
	d.failed = true
	d.alarm()
}

// pumpAll tries everything again.
func (d *Dispatcher) pumpAll() {
	for _, h := range d.handles {
		for _, m := range slices.Clone(h.members) {
			m.blocked = false
			if m.peer != nil && m.full && !m.hasRested() {
				d.later()
			}
			if m.leaving {
				d.dismiss(m)
			}
		}
		d.pump(h)
	}
	for _, p := range d.peers {
		d.serve(p)
	}
}

// hasRested lets a member that refused a connection be offered another, when it is
// time.
func (m *member) hasRested() bool {
	m.full = m.h.d.now.Before(m.until)
	return !m.full
}

// pump hands over as long as there are connections and somebody is free to take
// them. No connection is accepted before it is known who may have it, so what
// nobody takes waits in the kernel, where a crash of this process leaves it.
func (d *Dispatcher) pump(h *handle) {
	if h.late > 0 {
		d.relieve(h)
	}
	for len(h.waiting) > 0 || h.arrived() != nil {
		if !d.fill(h) {
			break
		}
		d.flush(h)
	}
	if h.waits() {
		d.arm(h)
	}
}

// waits reports whether a connection waits for a member to be free.
func (h *handle) waits() bool { return len(h.waiting) > 0 || h.late > 0 || h.arrived() != nil }

// fill chooses members for connections until nobody is free or none is left, and
// reports whether it gave anybody something.
func (d *Dispatcher) fill(h *handle) bool {
	gave := false
	for i := 0; i < len(h.waiting); {
		m := h.choose(h.waiting[i])
		if m == nil { // there may be somebody for the next, which another passed on
			i++
			continue
		}
		m.batch = append(m.batch, h.waiting[i])
		h.waiting = append(h.waiting[:i], h.waiting[i+1:]...)
		gave = true
	}
	for s := h.arrived(); s != nil && h.anyFree(); s = h.arrived() {
		c, ok := d.accept(h, s)
		if !ok {
			if s.arrived {
				return gave // it failed for a lack of something
			}
			continue
		}
		m := h.choose(c)
		if m == nil { // a worker's own count has grown since
			h.waiting = append(h.waiting, c)
			return gave
		}
		m.batch = append(m.batch, c)
		gave = true
	}
	return gave
}

// arrived returns a socket at which connections may wait.
func (h *handle) arrived() *source {
	for i := range h.sources {
		if s := h.sources[(h.next+i)%len(h.sources)]; s.arrived {
			return s
		}
	}
	return nil
}

func (h *handle) anyFree() bool {
	for _, m := range h.members {
		if m.free() {
			return true
		}
	}
	if h.peers == 0 || h.deep {
		return false
	}
	h.deep = true
	free := h.anyFree()
	h.deep = false
	return free
}

// accept takes one connection out of the kernel's queue.
func (d *Dispatcher) accept(h *handle, s *source) (conn, bool) {
	for {
		fd, hash, errno := d.scratch.accept(s.fd, h.policy == SourceHash)
		switch errno {
		case 0:
			h.stats.Accepted.Add(1)
			h.next++ // so that one that is never empty keeps no other waiting
			return conn{fd: fd, hash: hash}, true
		case unix.EAGAIN:
			s.arrived = false
			return conn{}, false
		case unix.EINTR, unix.ECONNABORTED, unix.EPROTO, unix.EPERM, unix.ENETDOWN, unix.ENOPROTOOPT, unix.EHOSTDOWN, unix.ENONET,
			unix.EHOSTUNREACH, unix.EOPNOTSUPP, unix.ENETUNREACH: // of that connection, accept(2)
			if errno == unix.EOPNOTSUPP {
				s.arrived = false
				return conn{}, false
			}
			continue
		case unix.EINVAL: // somebody shut the socket down
			s.arrived = false
			d.complain(h, errno)
			return conn{}, false
		}
		d.later() // EMFILE, ENFILE, ENOBUFS, ENOMEM: the kernel keeps the connection
		d.complain(h, errno)
		return conn{}, false
	}
}

// complainEvery is the shortest time between two reports that accept(2) fails on
// a handle: it is tried again many times a second.
const complainEvery = 10 * time.Second

func (d *Dispatcher) complain(h *handle, errno unix.Errno) {
	if d.now.Sub(h.complained) >= complainEvery {
		h.complained = d.now
		d.o.Report(h.id, 0, fmt.Errorf("accept: %w", errno))
	}
}

// deliver sends a member what was chosen for it.
func (d *Dispatcher) deliver(m *member) unix.Errno {
	if m.peer != nil {
		return d.offerTo(m)
	}
	errno := d.scratch.send(m.fd, m.batch)
	if errno == 0 {
		d.sent(m)
	}
	return errno
}

// flush sends each member what was chosen for it, and forgets it: it is the
// channel's now.
func (d *Dispatcher) flush(h *handle) {
	for i := 0; i < len(h.members); i++ {
		m := h.members[i]
		if len(m.batch) == 0 {
			continue
		}
		switch errno := d.deliver(m); errno {
		case 0:
		case unix.EAGAIN, unix.ETOOMANYREFS, unix.ENOBUFS, unix.ENOMEM:
			m.blocked = true
			d.later()
			h.waiting = append(h.waiting, m.batch...)
			m.batch = m.batch[:0]
		default: // EPIPE: the worker does not want to read any more
			d.dismiss(m)
			if len(h.members) <= i || h.members[i] != m {
				i--
			}
		}
	}
}
