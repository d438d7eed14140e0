package core

import (
	"slices"
	"time"

	"github.com/f72e338e/supervisord/internal/proto"
)

// Workers without a link get their sockets when they are started, say a few words over
// a notify socket, or nothing at all; the rest is found out about them.

// endow gives a worker that cannot ask its pool's listeners.
func (c *Core) endow(w *Worker, g *Generation) {
	if g.Spec.Protocol != ProtocolSystemd {
		return
	}
	for _, id := range g.Handles {
		h := c.handles[id]
		if h == nil || h.State != HandleOpen {
			continue
		}
		c.hold(w, h)
	}
}

// OnlyFor reports whether every generation that a handle is for is such.
func (c *Core) OnlyFor(id proto.HandleID, such func(PoolSpec) bool) bool {
	for _, p := range c.pools {
		for i := range p.Gens {
			if slices.Contains(p.Gens[i].Handles, id) && !such(p.Gens[i].Spec) {
				return false
			}
		}
	}
	return true
}

// notified takes what a worker says over its notify socket.
func (c *Core) notified(w *Worker, ev Notified) {
	c.touch(workerRef(w))
	if ev.Status != "" {
		c.status(w, ev.Status)
	}
	if ev.Extend > 0 {
		c.extend(w, ev.Extend)
	}
	switch {
	case ev.Broken:
		c.life(w, evLinkBroken, input{cause: "says that it is broken (WATCHDOG=trigger)"})
	case ev.Stopping:
		c.life(w, evDraining, input{cause: "STOPPING=1"})
	case ev.Ready && !c.spec(w).ReadyOnly:
		c.life(w, evReady, input{})
	}
	if ev.Alive || ev.Ready {
		c.alive(w)
	}
}

// maxExtend is how much longer a worker can make a deadline at once.
const maxExtend = 10 * time.Minute

// extend puts off the deadline of a worker that starts or drains, which it may do again
// and again (sd_notify(3), EXTEND_TIMEOUT_USEC=); a drain no further than
// generation_timeout.
func (c *Core) extend(w *Worker, d time.Duration) {
	if w.Deadline == 0 || w.State != Starting && w.State != Draining {
		return
	}
	at := c.now.Add(min(d, maxExtend))
	if w.State == Draining && w.DrainBy != 0 {
		at = min(at, w.DrainBy)
	}
	if at > w.Deadline {
		c.setDeadline(w, at.Sub(c.now))
	}
}

// alive begins the time anew in which a ready worker has to show life.
func (c *Core) alive(w *Worker) {
	d := c.spec(w).Timeouts.Heartbeat
	if w.State != Ready || d == 0 {
		return
	}
	if w.Greeted {
		d /= 2 // then it is asked
	}
	if !w.Pinged && w.Deadline.Sub(c.now) > d-d/8 { // one that never stops talking costs nothing
		return
	}
	w.Pinged = false
	c.setDeadline(w, d)
}

// silent asks a worker that has shown no life, where it can be asked, and ends it
// when it could not answer, or cannot be asked. The state is Killing already.
func (c *Core) silent(w *Worker, _ input) {
	d := c.spec(w).Timeouts.Heartbeat
	if w.Greeted && !w.Pinged {
		w.State, w.Pinged = Ready, true
		c.do(Send{Worker: w.ID, Envelope: proto.Envelope{Body: proto.Ping{}}})
		c.setDeadline(w, d/2)
		return
	}
	w.Failure = "showed no life for " + d.String()
	c.kill(w, w.Failure)
	c.lose(w, w.Failure, false)
}

// said tells what a worker says.
func (c *Core) said(w *Worker, ev Said) {
	ch := w.of(ev.What)
	ch.Cause = clip(ev.Text, maxSaid)
	if ev.What == WhatWorkerRefused {
		c.refused(w, ch)
		return
	}
	c.changed(ch)
}

// maxSaid is how much of what a worker says is told.
const maxSaid = 4096

// surveyed takes what was found out about a worker's connections.
func (c *Core) surveyed(w *Worker, ev Counted) {
	c.touch(workerRef(w))
	if ev.Unknown {
		w.Connected = nil
	} else {
		n := min(max(0, ev.Connections), maxCount)
		w.Connected = &n
	}
	if ev.Re != 0 && ev.Re == w.Asked {
		c.answered(w)
	}
}
