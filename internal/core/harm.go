package core

import (
	"slices"
	"time"

	"github.com/f72e338e/supervisord/internal/proto"
)

// All holders of a handle have the same open file, and each can harm the others
// with it: shutdown(2) ends it for all, a second listen(2) changes the backlog,
// fcntl(2) the flags. The shell notices, the core decides what is done about it:
//
//	Sabotaged ──▶ Mend ──▶ Mended: on the same socket, for all who hold it
//	                          │
//	                          └──▶ anew: who holds the old one holds nothing now,
//	                               so a roll-out replaces their pools' workers
//
// A socket that is shut down again and again is mended later and later, since a
// worker that does it at each start must not keep the master busy for ever; so is
// a roll-out that left workers with a dead socket tried again.

// Harm is what was done to a handle's sockets of late, and what is being done about it.
type Harm struct {
	Shut  int              `json:"shut,omitempty"`  // shut-downs, with less than harmQuiet between
	Other int              `json:"other,omitempty"` // whatever else was put back, likewise
	Last  Time             `json:"last"`            // when the last was found
	Dead  bool             `json:"dead,omitempty"`  // one is shut down, and not mended yet
	Asked bool             `json:"asked,omitempty"` // Mend is under way
	Again bool             `json:"again,omitempty"` // one was shut down meanwhile
	Anew  bool             `json:"anew,omitempty"`  // a new socket had to be made
	At    Time             `json:"at,omitempty"`    // deadline of the next try, of Mend or of the roll-out
	Stale []proto.WorkerID `json:"stale,omitempty"` // hold a socket that is dead for ever
	Tries int              `json:"tries,omitempty"` // roll-outs for that

	Blocking bool `json:"blocking,omitempty"` // holders may wait in accept(2), to be roused when it is mended
}

const (
	// harmQuiet after the last harm all before it is forgotten.
	harmQuiet = 5 * time.Minute
	// A socket that listens again by a system call is mended shutAtOnce times in a
	// row without delay, then after shutDelay, doubled up to shutMost.
	shutAtOnce = 8
	shutDelay  = 10 * time.Millisecond
	shutMost   = time.Second
	// One that must be made anew costs a roll-out each time.
	anewAtOnce = 2
	anewDelay  = time.Second
	anewMost   = time.Minute
	// A roll-out that has left somebody with a dead socket is tried again after
	// rollAgain, doubled up to rollMost.
	rollAgain = 30 * time.Second
	rollMost  = 10 * time.Minute
)

// doubled returns d, doubled n times, at most most.
func doubled(d, most time.Duration, n int) time.Duration {
	if n < 0 || n > 30 || d<<n > most {
		return most
	}
	return d << n
}

// deadline returns the earlier one of a handle's two, 0 for none.
func (h *Handle) deadline() Time {
	if h.Harm == nil || h.Harm.At == 0 || h.Linger != 0 && h.Linger < h.Harm.At {
		return h.Linger
	}
	return h.Harm.At
}

func (c *Core) sabotaged(ev Sabotaged) {
	h := c.handles[ev.Handle]
	if h == nil || h.State != HandleOpen || c.m.Stopping { // some servers shut down what they leave
		return
	}
	c.touch(handleRef(h))
	if hm := h.Harm; hm == nil || c.now.Sub(hm.Last) > harmQuiet && !hm.Dead && !hm.Asked && hm.Stale == nil {
		h.Harm = &Harm{}
	}
	hm := h.Harm
	hm.Blocking = hm.Blocking || ev.Blocking
	switch {
	case hm.Dead || hm.Asked && !ev.Shut: // it is being mended, or will be
		hm.Again = hm.Again || hm.Asked && ev.Shut // but what is under way may have passed it by
	case ev.Shut:
		hm.Last, hm.Dead = c.now, true
		hm.Shut++
		c.tellHarm(h, ev, hm.Shut)
		if hm.Again = hm.Asked; !hm.Asked {
			c.mendIn(h, c.mendDelay(h))
		}
	default:
		hm.Last = c.now
		hm.Other++
		c.tellHarm(h, ev, hm.Other)
		c.mendIn(h, 0)
	}
}

func (c *Core) mendDelay(h *Handle) time.Duration {
	n, first, most := h.Harm.Shut-shutAtOnce, shutDelay, shutMost
	if h.Harm.Anew || proto.IsUnix(h.Key.Network) {
		n, first, most = h.Harm.Shut-anewAtOnce, anewDelay, anewMost
	}
	if n <= 0 {
		return 0
	}
	return doubled(first, most, n-1)
}

func (c *Core) mendIn(h *Handle, d time.Duration) {
	if h.Harm.Asked = d == 0; h.Harm.Asked {
		c.do(Mend{Handle: h.ID, Spec: h.Spec})
		return
	}
	h.Harm.At = c.now.Add(d)
	c.arm(h.Harm.At, handleRef(h))
}

// mended: the sockets are as they were, or a new one is in the place of one, or neither.
func (c *Core) mended(ev Mended) {
	h := c.handles[ev.Handle]
	if h == nil || h.Harm == nil {
		return
	}
	c.touch(handleRef(h))
	hm := h.Harm
	if !hm.Asked {
		return
	}
	hm.Asked = false
	if ev.Cause != "" {
		hm.Dead, hm.Again = true, false
		hm.Shut++
		c.tellMended(h, WhatHandleFailed, ev.Cause)
		c.mendIn(h, max(shutDelay, c.mendDelay(h)))
		return
	}
	h.Bound = ev.Bound
	if hm.Blocking { // now that nobody who looks again waits
		hm.Blocking = false
		for _, w := range c.holdersOf(h) {
			c.do(Rouse{w.ID})
		}
	}
	if ev.Anew {
		hm.Anew, hm.Stale, hm.Tries = true, nil, 0
		for _, w := range c.holdersOf(h) {
			hm.Stale = append(hm.Stale, w.ID)
		}
	}
	if hm.Again {
		hm.Again = false
		c.mendIn(h, 0)
		return
	}
	if hm.Dead {
		hm.Dead = false
		how := "on the same socket"
		if ev.Anew {
			how = "by a new socket; who held the old one is replaced"
		}
		c.tellMended(h, WhatHandleMended, how)
	}
	if hm.Stale != nil {
		c.replaceStale(h)
	}
}

func (c *Core) tellMended(h *Handle, what, cause string) {
	if !worthTelling(h.Harm.Shut) {
		return
	}
	ch := c.about(h, what)
	ch.Attempt, ch.Took, ch.Cause = h.Harm.Shut, c.now.Sub(h.Harm.Last), cause
	c.changed(ch)
}

// replaceStale brings the workers that hold a dead socket to a new generation of
// the same kind, each with all of its pool. Those that hold it and drain do not
// accept any more.
func (c *Core) replaceStale(h *Handle) {
	hm := h.Harm
	pools := map[string]bool{}
	hm.Stale = slices.DeleteFunc(hm.Stale, func(id proto.WorkerID) bool {
		w := c.workers[id]
		if w == nil || !w.Attached || !slices.Contains(w.Holds, h.ID) {
			return true
		}
		pools[w.Pool] = true
		return false
	})
	if len(hm.Stale) == 0 || c.m.Stopping {
		hm.Stale, hm.Tries = nil, 0
		return
	}
	for _, p := range c.sortedPools() {
		if pools[p.Name] && (hm.Tries == 0 || p.Rollout == nil) {
			spec, handles := p.latest()
			c.replace(p, Queued{Kind: "mend", Spec: *spec, Handles: slices.Clone(handles)})
		}
	}
	hm.At = c.now.Add(doubled(rollAgain, rollMost, hm.Tries))
	hm.Tries++
	c.arm(hm.At, handleRef(h))
}

// harmDue: the deadline of the harm has come.
func (c *Core) harmDue(h *Handle) {
	h.Harm.At = 0
	c.touch(handleRef(h))
	switch {
	case c.m.Stopping:
	case h.Harm.Dead:
		c.mendIn(h, 0)
	default:
		c.replaceStale(h)
	}
}

// mendAgain asks a new master for what its predecessor may not have done.
func (c *Core) mendAgain(h *Handle) {
	if h.Harm != nil && h.Harm.Asked {
		c.mendIn(h, 0)
	}
}
