package dispatch

import (
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long a worker may leave a hand-over unread while another is free.
// One that has time reads it within some 50 us; one that computes or is stopped may
// take any time. Each event shows who is late, and where there are none an alarm.
const patience = time.Millisecond

// loyalty is how much longer it is under source_hash, where clients want their worker.
const loyalty = 100

// patience is how long this member may leave a hand-over unread.
func (m *member) patience() time.Duration {
	if m.h.policy == SourceHash {
		return loyalty * m.h.d.patience
	}
	return m.h.d.patience
}

// sent notes that a member's batch is in its channel, and closes our copies: a
// connection ends for its client when the worker closes it.
func (d *Dispatcher) sent(m *member) {
	for i, c := range m.batch {
		closeRaw(c.fd)
		m.batch[i].fd = -1
	}
	m.out = append(m.out[:0], m.batch...)
	m.batch = m.batch[:0]
	m.give(int64(len(m.out)))
	m.unread, m.looked, m.since = true, d.round, d.now
	if m.listed {
		return
	}
	m.listed = true
	d.unread = append(d.unread, m)
	if due := d.now.Add(m.patience()); d.due.IsZero() || due.Before(d.due) {
		d.due = due
	}
	d.alarm()
}

// hasRead reports whether the worker has read what it was sent. It looks once in a
// round.
func (m *member) hasRead() bool {
	if !m.unread || m.peer != nil {
		return !m.unread
	}
	d := m.h.d
	if m.taking || m.looked == d.round {
		return false
	}
	// While a message is being freed it counts for one (sock_wfree).
	if d.scratch.unsent(m.fd) > 1 {
		m.looked = d.round
		return false
	}
	m.read()
	return true
}

// read notes that the worker has read what it was sent.
func (m *member) read() {
	if len(m.out) > 0 {
		m.most = min(2*m.most, m.h.d.o.Batch)
	}
	m.h.stats.Handed.Add(uint64(len(m.out)))
	m.out = m.out[:0]
	m.unread = false
	m.onTime()
}

func (m *member) onTime() {
	if m.late {
		m.late = false
		m.h.late--
	}
}

// overdue finds who has not read for patience.
func (d *Dispatcher) overdue() {
	d.round++
	left := d.unread[:0]
	d.due = time.Time{}
	for _, m := range d.unread {
		due := m.since.Add(m.patience())
		if len(m.out) > 0 && d.now.Before(due) {
			left = append(left, m)
			if d.due.IsZero() || due.Before(d.due) {
				d.due = due
			}
			continue
		}
		m.listed = false
		if len(m.out) > 0 && !m.hasRead() && !m.late {
			m.late = true
			m.h.late++
		}
	}
	clear(d.unread[len(left):])
	d.unread = left
	for _, h := range d.handles {
		if h.late > 0 {
			d.pump(h)
		}
	}
}

// relieve takes back what late members have, if somebody else is free.
func (d *Dispatcher) relieve(h *handle) {
	for _, m := range h.members {
		if m.late && !m.hasRead() && h.another(m) {
			m.relieved = true
			d.takeBack(m)
		}
	}
}

// another reports whether somebody else is free for what a member has not read.
func (h *handle) another(m *member) bool {
	for _, o := range h.members {
		if o != m && (len(m.out) == 0 || o.takes(m.out[0])) && o.free() {
			return true
		}
	}
	return false
}

// arm lets epoll tell when one of those reads who are busy only because they have
// not. It tells once at once, so what they read meanwhile is not missed.
func (d *Dispatcher) arm(h *handle) {
	for _, m := range h.members {
		if m.unread && !m.armed && m.admitted && !m.full && m.peer == nil {
			m.armed = true
			d.rewatch(m)
		}
	}
}

func (d *Dispatcher) disarm(m *member) {
	m.armed = false
	d.rewatch(m)
}

// rewatch tells epoll anew what to tell of a member. What is so already is told too.
func (d *Dispatcher) rewatch(m *member) {
	events := uint32(unix.EPOLLIN | unix.EPOLLET)
	if m.armed {
		events |= unix.EPOLLOUT
	}
	_ = d.control(unix.EPOLL_CTL_MOD, m.fd, m.at, events) // ENOMEM is not among its errors
}
