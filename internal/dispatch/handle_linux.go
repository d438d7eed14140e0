package dispatch

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
)

// handle is one address that connections arrive at.
type handle struct {
	d       *Dispatcher
	id      uint64
	sources []*source
	next    int // where arrived begins
	policy  Policy
	members []*member
	turn    int
	given   int64  // the most that a member had, see inTurn
	waiting []conn // taken back from a worker, or passed on by one; they go first
	late    int    // members that are late
	peers   int    // members with a peer
	deep    bool   // a member that has not answered yet is better than none, see mayOffer

	complained time.Time
	stats      Stats
}

// source is a listening socket of a handle.
type source struct {
	fd      int
	at      int32
	arrived bool // there may be connections: none was missing at the last look
}

// conn is a connection that was accepted and has no owner yet.
type conn struct {
	fd   int
	hash uint64
	not  uint64 // the worker that passed it on, and is not to have it back; 0 = nobody
	soft bool   // unless nobody else takes it
	seq  int64  // under which it was offered to a peer
}

// Stats counts what became of a handle's connections.
type Stats struct {
	Accepted atomic.Uint64 // from the kernel
	Handed   atomic.Uint64 // read by a worker
	Returned atomic.Uint64 // taken back from one that did not read them
}

// Add makes a handle. Connections arrive at the sockets that AddSocket gives it,
// and by Pass.
func (d *Dispatcher) Add(id uint64, policy Policy) {
	d.do(func() {
		if d.handles[id] == nil {
			d.handles[id] = &handle{d: d, id: id, policy: policy}
		}
	})
}

// AddSocket takes a listening socket and dispatches what arrives on it, beside what
// arrives at others of the handle. Errors: no such handle, EPERM for a file that
// cannot be polled, ENOMEM; the socket is closed then.
func (d *Dispatcher) AddSocket(id uint64, listener *fdpass.File) (err error) {
	s := &source{fd: listener.Release()}
	ran := d.do(func() {
		h := d.handles[id]
		if h == nil {
			err = fmt.Errorf("handle %d is not dispatched", id)
			return
		}
		s.at = d.place(entry{h: h, s: s})
		// Edge-triggered: it stays as it is whether somebody is free or not.
		if err = d.watch(s.fd, s.at, unix.EPOLLIN|unix.EPOLLET); err != nil {
			d.vacate(s.at)
			return
		}
		h.sources = append(h.sources, s)
	})
	if !ran {
		err = errEnded
	}
	if err != nil {
		_ = unix.Close(s.fd)
	}
	return err
}

// Passed is a connection that a worker accepted and has read nothing from.
type Passed struct {
	From       uint64 // that worker, which does not get it back
	Reluctant  bool   // but when nobody else takes it
	Connection *fdpass.File
}

// Pass takes a connection, and gives it to another worker. Errors: no such handle, EAGAIN when maxPassed wait already;
// then it is closed.
func (d *Dispatcher) Pass(id uint64, p Passed) (err error) {
	fd := p.Connection.Release()
	ran := d.do(func() {
		h := d.handles[id]
		if h == nil {
			err = fmt.Errorf("handle %d is not dispatched", id)
			return
		}
		waiting := 0
		for _, h := range d.handles {
			waiting += len(h.waiting)
		}
		if waiting >= maxPassed {
			err = unix.EAGAIN
			return
		}
		h.waiting = append(h.waiting, conn{fd: fd, hash: d.scratch.hashOf(fd), not: p.From, soft: p.Reluctant})
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

// maxPassed bounds the connections that wait here because nobody takes them: others
// wait in the kernel, and cost this process no descriptor.
const maxPassed = 256

var errEnded = errors.New("the dispatcher has ended")

// SetPolicy changes the policy of a handle; nothing is lost by it.
func (d *Dispatcher) SetPolicy(id uint64, policy Policy) {
	d.do(func() {
		if h := d.handles[id]; h != nil {
			h.policy = policy
		}
	})
}

// DropSockets closes the listening sockets of a handle. Its members, and connections
// that were accepted, stay.
func (d *Dispatcher) DropSockets(id uint64) {
	d.do(func() {
		if h := d.handles[id]; h != nil {
			d.dropSockets(h)
		}
	})
}

func (d *Dispatcher) dropSockets(h *handle) {
	for _, s := range h.sources {
		d.vacate(s.at)
		closeRaw(s.fd)
	}
	h.sources = nil
}

// Remove ends dispatching on a handle. What is in the kernel's queue stays there,
// for other holders of the socket; what workers have in their channels is theirs.
func (d *Dispatcher) Remove(id uint64) {
	d.do(func() {
		if h := d.handles[id]; h != nil {
			d.remove(h)
		}
	})
}

func (d *Dispatcher) remove(h *handle) {
	delete(d.handles, h.id)
	for _, m := range h.members {
		d.closeMember(m)
	}
	for _, c := range h.waiting {
		d.discard(c.fd)
	}
	d.dropSockets(h)
	h.members, h.waiting = nil, nil
}

// Counts returns what became of a handle's connections.
func (d *Dispatcher) Counts(id uint64) (accepted, handed, returned uint64) {
	d.do(func() {
		if h := d.handles[id]; h != nil {
			for _, m := range h.members {
				m.hasRead()
			}
			accepted, handed, returned = h.stats.Accepted.Load(), h.stats.Handed.Load(), h.stats.Returned.Load()
		}
	})
	return accepted, handed, returned
}
