package core

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/f72e338e/supervisord/internal/proto"
)

// A master that takes over knows the state of the one before, and does not know
// which of its actions were carried out, nor what it had read and not acted on.
// Each worker with a link is therefore sent an unasked welcome with the new epoch,
// and repeats everything behind a hello of that epoch; until then what it says is
// ignored (docs/protocol.md, "A new master").
//
//	old master ──grant──▶┐             new master ──welcome──▶┐
//	                     ▼                                    ▼
//	worker    listen ─▶ … reads grant … hello(0) … … … … … reads welcome
//	                                                          │
//	          ◀── hello(epoch, holds) ◀── open requests ◀─────┘
//
// What is guaranteed, provided that a step's record is written before its actions
// are carried out, and that both ends read the link in order:
//
//  1. No request is answered twice. When the worker reads the welcome it has read
//     every answer of the old master; it repeats those requests that had none; and
//     this master answers none, not even one that the old master's record has
//     waiting for a bind, before the hello.
//  2. No request is lost: what was read, or waits unread in the link, is repeated.
//  3. Holds are what the worker has. Every grant of the old master was read before
//     the hello, and none of this master's is on its way, so the hello's list is
//     complete; a hello of an older epoch, still in the link, is ignored.
//  4. No socket closes because its grant was recorded and never sent: it is kept
//     for repeatGrace, in which the worker repeats its request.
//  5. A drain that was recorded and never sent is sent again.
//
// A worker that never repeats its hello serves on and can ask for nothing: its
// exit, the end of its link, its start timeout and a stop work as ever.

// repeatGrace is how long a handle that nobody holds is kept for a request that a
// worker is about to repeat, at a takeover.
const repeatGrace = 5 * time.Second

func (c *Core) tookOver(ev TookOver) {
	old := c.m.Epoch
	c.m.Epoch = max(ev.Epoch, old+1)
	c.m.TookOver = c.now
	c.touch(Ref{Kind: RefMaster})
	c.changed(Changed{What: WhatMasterTookOver, Slot: -1, From: fmt.Sprint(old), To: fmt.Sprint(c.m.Epoch), Cause: ev.Why})
	for _, h := range c.sortedHandles() {
		if h.State == HandleBinding { // whether it was bound nobody knows
			h.Waiters = nil
			c.touch(handleRef(h))
			c.do(Bind{Handle: h.ID, Spec: h.Spec, Policy: h.Policy})
		}
		c.mendAgain(h)
	}
	for _, id := range slices.Sorted(maps.Keys(c.gathers)) {
		if g := c.gathers[id]; g.Worker != 0 {
			c.dropGather(g)
		}
	}
	for _, w := range c.sortedWorkers() {
		if w.ReadyAt != 0 && !w.Barred {
			c.do(Admit{w.ID, true})
		}
		if !w.Linked {
			continue
		}
		w.Waits, w.Asked = nil, 0
		c.touch(workerRef(w))
		if w.State == Unlinked {
			continue
		}
		w.Rejoining = true
		c.do(Send{Worker: w.ID, Envelope: proto.Envelope{Body: c.welcome(w)}})
	}
	if c.m.Quit {
		c.do(Quit{c.m.Code})
	}
}

// rejoin takes the hello that a worker says to a new master.
func (c *Core) rejoin(w *Worker, m proto.Hello) {
	w.Rejoining, w.Greeted = false, true
	for _, id := range slices.Clone(w.Holds) {
		if h := c.handles[id]; !slices.Contains(m.Holds, id) {
			c.unhold(w, h)
			if !c.awaitAskers(h) {
				c.unheld(h, w)
			}
		}
	}
	for _, id := range m.Holds {
		if h := c.handles[id]; h != nil && c.mayClaim(w, h) {
			w.Holds = append(w.Holds, id)
			h.Holders++
			h.Linger = 0
			c.touch(handleRef(h))
		}
	}
	if m.Counts != nil {
		c.counted(w, 0, *m.Counts)
		c.answered(w)
	}
	if len(w.Gathers) > 0 {
		c.askCount(w)
	}
	switch m.State {
	case proto.StateReady:
		c.life(w, evReady, input{})
	case proto.StateDraining:
		c.life(w, evDraining, input{cause: "found draining"})
		return
	}
	if len(w.Holds) > 0 {
		c.listeningMakesReady(w)
	}
	if w.State == Draining {
		c.do(Send{Worker: w.ID, Envelope: proto.Envelope{Body: proto.Drain{DeadlineMS: max(0, w.Deadline.Sub(c.now).Milliseconds()), Reason: w.Cause}}})
	}
}

// mayClaim reports whether a worker can hold what it says it holds. The old
// master's record has it as a rule; a record that lags behind has not.
func (c *Core) mayClaim(w *Worker, h *Handle) bool {
	g := c.pools[w.Pool].generation(w.Gen)
	return h.State == HandleOpen && c.mayHold(w, h, h.Owner != "") == nil &&
		(slices.Contains(g.Handles, h.ID) || c.allowed(g, h.Key) == nil)
}

// awaitAskers keeps a handle that nobody holds for those who may be about to ask
// for it again; false when no takeover was made of late.
func (c *Core) awaitAskers(h *Handle) bool {
	left := c.m.TookOver.Add(repeatGrace).Sub(c.now)
	if c.m.TookOver == 0 || left <= 0 || c.m.Stopping || h.Holders > 0 || h.Configured || len(h.Waiters) > 0 || h.State != HandleOpen || c.pinned(h) {
		return false
	}
	c.linger(h, left, nil)
	return true
}

// startLost starts a worker again, as if nothing had been: it is no failure of its own.
func (c *Core) startLost(w *Worker) {
	if w.State != Forking && w.State != Starting {
		return
	}
	for _, id := range slices.Clone(w.Holds) {
		h := c.handles[id]
		c.unhold(w, h)
		if !c.awaitAskers(h) {
			c.unheld(h, w)
		}
	}
	for _, id := range slices.Clone(w.Waits) {
		c.stopWaiting(w, c.handles[id])
	}
	c.answered(w)
	*w = Worker{ID: w.ID, Pool: w.Pool, Slot: w.Slot, Gen: w.Gen, State: Forking, Attached: w.Attached, Linked: w.Linked,
		Begun: c.now, EndWish: w.EndWish, Cause: w.Cause}
	c.touch(workerRef(w))
	if w.EndWish || c.m.Stopping {
		c.life(w, evSpawnFailed, input{cause: "the master died while it was started"})
		return
	}
	g := c.pools[w.Pool].generation(w.Gen)
	c.endow(w, g)
	c.do(Spawn{Worker: w.ID, Pool: w.Pool, Slot: w.Slot, Gen: w.Gen, Launch: g.Spec.Launch, Linked: w.Linked, Handles: slices.Clone(w.Holds)})
}
