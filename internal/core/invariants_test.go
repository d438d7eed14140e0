package core

import (
	"testing"

	"github.com/f72e338e/supervisord/internal/proto"
)

// invariants hold over every history of a core.
type invariants struct {
	requests map[Waiter]bool // unanswered requests of workers
	ops      map[OpID]bool   // unanswered commands
	open     map[proto.HandleID]bool
	launches map[uint64]bool // forgotten
	greeted  map[proto.WorkerID]bool
	rejoin   map[proto.WorkerID]bool // are ignored until their hello of the new epoch
	surge    map[string]int          // largest so far: a reload may lower it while a successor is on its way
	stopping bool
	quit     bool
}

func newInvariants() *invariants {
	return &invariants{requests: map[Waiter]bool{}, ops: map[OpID]bool{}, open: map[proto.HandleID]bool{}, launches: map[uint64]bool{}, greeted: map[proto.WorkerID]bool{}, rejoin: map[proto.WorkerID]bool{}, surge: map[string]int{}}
}

// after checks one step: every request answered exactly once; a granted handle
// is open; never more workers than desired + surge; nothing starts after stop;
// counters agree with what they count.
func (v *invariants) after(t testing.TB, c *Core, ev Event, actions []Action) {
	t.Helper()
	v.asked(c, ev)
	for _, a := range actions {
		switch a := a.(type) {
		case Changed:
			v.stopping = v.stopping || a.What == WhatMasterStopping
		case Spawn:
			if v.stopping {
				t.Fatalf("%s after stop", text(a))
			}
			if v.launches[a.Launch] {
				t.Fatalf("%s from a launch that was forgotten", text(a))
			}
		case Forget:
			if v.launches[a.Launch] {
				t.Fatalf("launch %d forgotten twice", a.Launch)
			}
			v.launches[a.Launch] = true
		case Send:
			v.sent(t, a)
		case Relisten:
			if !v.open[a.Handle] {
				t.Fatalf("%s, which is not open", text(a))
			}
		case Mend:
			if !v.open[a.Handle] {
				t.Fatalf("%s, which is not open", text(a))
			}
		case Release:
			if !v.open[a.Handle] {
				t.Fatalf("handle %d released and not open", a.Handle)
			}
			delete(v.open, a.Handle)
		case Reply:
			if !v.ops[a.Op] {
				t.Fatalf("operation %d answered, and not asked or answered before", a.Op)
			}
			delete(v.ops, a.Op)
		case Quit:
			if v.quit || len(c.workers) > 0 || len(v.open) > 0 || len(v.ops) > 0 {
				t.Fatalf("quit with %d workers, %d open handles, %d unanswered operations (second: %v)", len(c.workers), len(v.open), len(v.ops), v.quit)
			}
			v.quit = true
		}
	}
	if c.m.Stopping && !v.stopping {
		t.Fatal("the master stops and did not say so")
	}
	checkCounters(t, c)
	checkWorkers(t, c, v.surge)
	if at, ok := c.NextDeadline(); ok && at <= c.now {
		t.Fatalf("deadline %v has come and was not met (now %v)", at, c.now)
	}
}

func (v *invariants) asked(c *Core, ev Event) {
	switch ev := ev.(type) {
	case TookOver: // what was asked for is asked for again
		for _, w := range c.workers {
			v.rejoin[w.ID] = w.Rejoining
		}
		for wt := range v.requests {
			if c.workers[wt.Worker].Linked {
				delete(v.requests, wt)
			}
		}
	case Received:
		v.heard(c, ev)
	case Configured:
		v.ops[ev.Op] = true
		for _, p := range ev.Config.Pools {
			v.surge[p.Name] = max(v.surge[p.Name], p.Rollout.MaxSurge)
		}
	case ScaleAsked:
		v.ops[ev.Op] = true
	case StopAsked:
		if ev.Op != 0 {
			v.ops[ev.Op] = true
		}
	case CountsAsked:
		v.ops[ev.Op] = true
	case BoundHandle:
		if _, ok := c.handles[ev.Handle]; ok {
			v.open[ev.Handle] = true
		} else if ev.Handle != 0 {
			v.open[ev.Handle] = true // bound and released in the same step
		}
	}
	for w := range v.requests {
		if c.workers[w.Worker] == nil {
			delete(v.requests, w) // nobody is left to be answered
		}
	}
}

// heard notes a request that is owed an answer.
func (v *invariants) heard(c *Core, ev Received) {
	w, id := c.workers[ev.Worker], ev.Envelope.ID
	if w == nil {
		return
	}
	switch m := ev.Envelope.Body.(type) {
	case proto.Hello:
		if v.rejoin[w.ID] {
			v.rejoin[w.ID] = m.Epoch != c.m.Epoch
			v.greeted[w.ID] = true
			return // it tells, and asks nothing
		}
		again := v.greeted[w.ID]
		v.greeted[w.ID] = true
		if again && m.Epoch == c.m.Epoch {
			return
		}
	case proto.Listen, proto.Connections:
		if v.rejoin[w.ID] {
			return // it repeats it
		}
	default:
		return
	}
	if id != 0 {
		v.requests[Waiter{w.ID, id}] = true
	}
}

func (v *invariants) sent(t testing.TB, a Send) {
	t.Helper()
	if g, ok := a.Envelope.Body.(proto.Grant); ok {
		if !v.open[g.Handle] || a.Handle != g.Handle {
			t.Fatalf("granted handle %d is not open", g.Handle)
		}
		if v.rejoin[a.Worker] {
			t.Fatalf("%s before the worker's hello", text(a))
		}
	}
	if a.Envelope.Re == 0 {
		return
	}
	key := Waiter{a.Worker, a.Envelope.Re}
	if !v.requests[key] {
		t.Fatalf("%s answers nothing, or for the second time", text(a))
	}
	delete(v.requests, key)
}

// fataler is what the checks need of *testing.T, *rapid.T and their like.
type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

func checkCounters(t fataler, c *Core) {
	t.Helper()
	live := 0
	for _, p := range c.pools {
		ready, done, workers := 0, 0, 0
		for i := range p.Slots {
			s := &p.Slots[i]
			if s.Serving {
				ready++
				if w := c.workers[s.Current]; w == nil || w.State != Ready {
					t.Fatalf("slot %s/%d serves without a ready worker", p.Name, i)
				}
			}
			if s.Done {
				done++
			}
			if p.generation(s.Gen) == nil && !p.Removed {
				t.Fatalf("slot %s/%d is on generation %d, which is gone", p.Name, i, s.Gen)
			}
		}
		per := map[uint64]int{}
		for _, w := range c.workers {
			if w.Pool == p.Name {
				workers++
				per[w.Gen]++
			}
		}
		for i := range p.Gens {
			if p.Gens[i].Live != per[p.Gens[i].Number] {
				t.Fatalf("pool %s generation %d: live is %d, really %d", p.Name, p.Gens[i].Number, p.Gens[i].Live, per[p.Gens[i].Number])
			}
		}
		if ready != p.ReadySlots || done != p.DoneSlots || workers != p.Live {
			t.Fatalf("pool %s counts ready=%d done=%d live=%d, really %d %d %d", p.Name, p.ReadySlots, p.DoneSlots, p.Live, ready, done, workers)
		}
		live += workers
	}
	if live != c.live || live != len(c.workers) {
		t.Fatalf("live is %d, %d in pools, %d in all", c.live, live, len(c.workers))
	}
	holders := map[proto.HandleID]int{}
	for _, w := range c.workers {
		for _, h := range w.Holds {
			holders[h]++
			if c.handles[h] == nil || c.handles[h].State != HandleOpen {
				t.Fatalf("worker %d holds handle %d, which is not open", w.ID, h)
			}
		}
	}
	for _, h := range c.handles {
		if h.Holders != holders[h.ID] {
			t.Fatalf("handle %d counts %d holders, really %d", h.ID, h.Holders, holders[h.ID])
		}
		for _, wt := range h.Waiters {
			if c.workers[wt.Worker] == nil {
				t.Fatalf("handle %d is waited for by worker %d, which is gone", h.ID, wt.Worker)
			}
		}
		checkMembers(t, c, h)
		if h.State == HandleOpen && h.Holders == 0 && !h.Configured && h.Linger == 0 && !c.pinned(h) {
			t.Fatalf("handle %d is open for nobody", h.ID)
		}
	}
}

// checkWorkers checks that slots and workers know each other, and that there are never
// more workers on their way to serve than desired and surge allow.
func checkWorkers(t fataler, c *Core, surges map[string]int) {
	t.Helper()
	attached := map[string]int{}
	for _, w := range c.workers {
		if lifecycle[w.State] == nil {
			t.Fatalf("worker %d is in state %q", w.ID, w.State)
		}
		if !w.Attached {
			continue
		}
		attached[w.Pool]++
		s := c.pools[w.Pool].slot(w.Slot)
		if s == nil || s.Current != w.ID && s.Next != w.ID {
			t.Fatalf("worker %d is attached to slot %s/%d, which does not know it", w.ID, w.Pool, w.Slot)
		}
		if w.State != Forking && w.State != Ready && w.Deadline == 0 {
			t.Fatalf("worker %d is %s without a deadline", w.ID, w.State)
		}
	}
	for name, n := range attached {
		p := c.pools[name]
		surge := surges[name]
		if n > p.Desired+surge {
			t.Fatalf("pool %s has %d workers, desired %d and surge %d", name, n, p.Desired, surge)
		}
		for i := range p.Slots {
			s := &p.Slots[i]
			for _, id := range []workerID{s.Current, s.Next} {
				if w := c.workers[id]; id != 0 && (w == nil || !w.Attached || w.Slot != i || w.Pool != name) {
					t.Fatalf("slot %s/%d names worker %d, which is not attached to it", name, i, id)
				}
			}
		}
	}
}

// checkMembers checks that each slot has one member for itself under reuse_port,
// that owners exist, and that no worker who can take it leaves a member to nobody.
func checkMembers(t fataler, c *Core, h *Handle) {
	t.Helper()
	own := map[string]int{}
	for i, m := range h.Members {
		switch {
		case m.Owner == "":
			continue
		case !c.slotExists(m.Owner):
			t.Fatalf("handle %d: member %d belongs to slot %s, which is gone", h.ID, i, m.Owner)
		case !m.Spare:
			own[m.Owner]++
		}
	}
	for owner, n := range own {
		if n > 1 && h.Policy == proto.PolicyReusePort {
			t.Fatalf("handle %d: slot %s has %d members for itself", h.ID, owner, n)
		}
	}
}
