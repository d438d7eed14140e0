package core

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
)

func (c *Core) sortedPools() []*Pool {
	return slices.SortedFunc(maps.Values(c.pools), func(a, b *Pool) int { return cmp.Compare(a.Name, b.Name) })
}

func (c *Core) sortedHandles() []*Handle {
	return slices.SortedFunc(maps.Values(c.handles), func(a, b *Handle) int { return cmp.Compare(a.ID, b.ID) })
}

// opDone: one part of the operation is done; with the last it is answered.
func (c *Core) opDone(id OpID) { c.opFailed(id, Result{}) }

// opFailed: one part of the operation ended, with an error unless that is empty.
// The first error is the one that is told.
func (c *Core) opFailed(id OpID, res Result) {
	op := c.ops[id]
	if op == nil {
		return
	}
	c.touch(Ref{Kind: RefOperation, ID: uint64(id)})
	if op.Result.Error == "" && res.Error != "" {
		op.Result = res
	}
	if op.Pending--; op.Pending > 0 {
		return
	}
	delete(c.ops, id)
	c.do(Reply{Op: id, Result: op.Result})
}

// await makes the operation wait until the pool has settled: as many workers
// ready as it should have, and no roll-out under way.
func (c *Core) await(p *Pool, id OpID) {
	if op := c.ops[id]; op != nil {
		op.Pending++
		p.Awaiting = append(p.Awaiting, id)
	}
	c.settle(p)
}

// awaitFailed: a worker failed, so whoever waits for the pool is told.
func (c *Core) awaitFailed(p *Pool, w *Worker, text string) {
	waiting := p.Awaiting
	p.Awaiting = nil
	for _, op := range waiting {
		c.opFailed(op, Result{Error: fmt.Sprintf("worker %d (pool %s, slot %d) %s", w.ID, p.Name, w.Slot, text), Pool: p.Name, Worker: w.ID})
	}
}

// withdrawAwaiting ends the wait of those who waited for the pool to be gone.
func (c *Core) withdrawAwaiting(p *Pool) {
	waiting := p.Awaiting
	p.Awaiting = nil
	for _, op := range waiting {
		c.opFailed(op, Result{Error: "pool " + p.Name + " was configured again before it was gone"})
	}
}

// settle answers those who wait for the pool, and notes the first time that it
// is complete.
func (c *Core) settle(p *Pool) {
	if p.Rollout != nil || p.Removed || c.m.Stopping || p.ReadySlots+p.DoneSlots < p.Desired {
		return
	}
	if len(p.Awaiting) > 0 {
		waiting := p.Awaiting
		p.Awaiting = nil
		c.touch(poolRef(p))
		for _, op := range waiting {
			c.opDone(op)
		}
	}
	gaveUp := func(s Slot) bool { return s.Done && s.Limited }
	if p.WasReady || p.DoneSlots > 0 && slices.ContainsFunc(p.Slots, gaveUp) {
		return
	}
	p.WasReady = true
	c.touch(poolRef(p))
	c.changed(Changed{What: WhatPoolReady, Pool: p.Name, Slot: -1, Gen: p.Gen})
	c.checkReady()
}

// checkReady notes the first time that all pools were complete.
func (c *Core) checkReady() {
	if c.m.Ready || c.applying {
		return
	}
	for _, p := range c.pools {
		if !p.WasReady {
			return
		}
	}
	c.m.Ready = true
	c.touch(Ref{Kind: RefMaster})
	c.changed(Changed{What: WhatMasterReady, Slot: -1})
}

func (c *Core) scale(ev ScaleAsked) {
	op := &Operation{ID: ev.Op, Kind: "scale", Begun: c.now, Pending: 1}
	c.ops[ev.Op] = op
	c.touch(Ref{Kind: RefOperation, ID: uint64(ev.Op)})
	p := c.pools[ev.Pool]
	switch {
	case c.m.Stopping:
		c.opFailed(ev.Op, Result{Error: "the master is stopping"})
		return
	case p == nil || p.Removed:
		c.opFailed(ev.Op, Result{Error: fmt.Sprintf("there is no pool %q", ev.Pool)})
		return
	case ev.N < 0:
		c.opFailed(ev.Op, Result{Error: fmt.Sprintf("a pool cannot have %d workers", ev.N)})
		return
	case ev.N > 1 && c.ownsExclusive(p):
		c.opFailed(ev.Op, Result{Error: fmt.Sprintf("pool %s has an exclusive listener, so it cannot have more than one worker", p.Name)})
		return
	}
	ch := Changed{What: WhatPoolScaled, Pool: p.Name, Slot: -1, From: fmt.Sprint(p.Desired), To: fmt.Sprint(ev.N), Op: ev.Op}
	c.changed(ch)
	p.Desired = ev.N
	c.resize(p)
	c.await(p, ev.Op)
	c.opDone(ev.Op)
}

func (c *Core) ownsExclusive(p *Pool) bool {
	for _, id := range p.generation(p.Gen).Handles {
		if h := c.handles[id]; h != nil && h.Owner != "" {
			return true
		}
	}
	return false
}

// stop ends everything. A second one can only make it faster.
func (c *Core) stop(ev StopAsked) {
	if ev.Op != 0 {
		c.ops[ev.Op] = &Operation{ID: ev.Op, Kind: "stop", Begun: c.now, Pending: 1}
		c.touch(Ref{Kind: RefOperation, ID: uint64(ev.Op)})
	}
	if c.m.Stopping && (c.m.Fast || !ev.Fast) {
		return
	}
	first := !c.m.Stopping
	c.m.Stopping, c.m.Fast = true, ev.Fast
	c.m.Code = max(c.m.Code, ev.Code)
	c.touch(Ref{Kind: RefMaster})
	cause := "the master stops"
	how := "graceful"
	if ev.Fast {
		how = "fast"
	}
	c.changed(Changed{What: WhatMasterStopping, Slot: -1, Op: ev.Op, Cause: how})
	if first {
		c.dropChanges(cause)
	}
	for _, p := range c.sortedPools() {
		c.abortRollout(p, cause)
		waiting := p.Awaiting
		p.Awaiting = nil
		for _, op := range waiting {
			c.opFailed(op, Result{Error: cause})
		}
		for i := range p.Slots {
			c.empty(p, &p.Slots[i], cause)
		}
	}
	for _, h := range c.sortedHandles() {
		c.unheld(h, nil)
	}
	if ev.Fast {
		for _, w := range c.sortedWorkers() {
			if w.Cause == "" {
				w.Cause = cause
			}
			c.life(w, evEnd, input{})
		}
	}
	c.maybeQuit()
}

func (c *Core) sortedWorkers() []*Worker {
	return slices.SortedFunc(maps.Values(c.workers), func(a, b *Worker) int { return cmp.Compare(a.ID, b.ID) })
}

// dropChanges answers those whose configuration was still on the way.
func (c *Core) dropChanges(cause string) {
	changes := c.waiting
	c.waiting = nil
	c.touch(Ref{Kind: RefChange})
	if ch := c.change; ch != nil {
		changes = append([]Change{*ch}, changes...)
		c.letGo(ch)
	}
	for i := range changes {
		c.opFailed(changes[i].Op, Result{Error: cause})
	}
}

func (c *Core) abortRollout(p *Pool, cause string) {
	var ops []OpID
	if p.Rollout != nil {
		ops = append(ops, p.Rollout.Ops...)
	}
	if p.Queued != nil {
		ops = append(ops, p.Queued.Ops...)
	}
	p.Rollout, p.Queued = nil, nil
	c.touch(poolRef(p))
	for _, op := range ops {
		c.opFailed(op, Result{Error: cause})
	}
}

// maybeQuit ends the master when it was told to stop and nothing is left. Handles
// still being bound are waited for, so that no socket outlives its record.
func (c *Core) maybeQuit() {
	if !c.m.Stopping || c.m.Quit || c.live > 0 {
		return
	}
	for _, h := range c.sortedHandles() {
		if h.State == HandleBinding {
			return
		}
	}
	for _, h := range c.sortedHandles() {
		c.release(h, "the master stops")
	}
	c.m.Quit = true
	c.touch(Ref{Kind: RefMaster})
	for _, g := range slices.Sorted(maps.Keys(c.gathers)) {
		c.finishGather(c.gathers[g])
	}
	for _, id := range slices.Sorted(maps.Keys(c.ops)) {
		c.ops[id].Pending = 1
		c.opDone(id)
	}
	c.do(Quit{c.m.Code})
}
