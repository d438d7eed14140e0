package core

import (
	"fmt"
	"slices"
	"strings"
)

// rolloutLost: an attached worker of the slot failed. It returns true when that
// was the roll-out's business, and the slot starts afresh without a delay.
func (c *Core) rolloutLost(p *Pool, s *Slot, w *Worker, text string) bool {
	r := p.Rollout
	if r == nil || w.Gen != r.To {
		return false
	}
	if r.Phase == PhaseReverting { // even the old one fails: the slot's own backoff takes over
		c.rolloutSkips(p, s)
		return false
	}
	when := "before it was ready"
	if w.ReadyAt != 0 {
		when = "while it was watched"
	}
	if strings.HasPrefix(text, "not ready") {
		when = ""
	}
	r.Cause = strings.TrimSpace(fmt.Sprintf("worker %d (pool %s, slot %d) %s %s", w.ID, p.Name, w.Slot, text, when))
	r.Culprit = w.ID
	ch := w.of(WhatRolloutFailed)
	ch.Cause = text
	c.changed(ch)
	c.revert(p)
	return true
}

// revert gives every slot back to the old generation: those not replaced yet lose
// their starting successor, the others get another. With on_failure = "halt" only
// the former, and the roll-out ends.
func (c *Core) revert(p *Pool) {
	r := p.Rollout
	pol := p.generation(r.To).Spec.Rollout
	bad, old := r.To, r.From
	r.From, r.To, r.Phase, r.Active, r.Deadline = bad, old, PhaseReverting, nil, 0
	r.Order, r.Pos, r.Replaced = nil, 0, 0
	var serving []int
	for i := range p.Slots {
		s := &p.Slots[i]
		if s.Gen != bad {
			continue
		}
		if w := c.workers[s.Next]; w != nil {
			c.drain(w, "the roll-out failed")
		}
		if c.isOf(s.Current, bad) && (pol.Halt || c.workers[s.Current].State == Ready) {
			if !pol.Halt {
				serving = append(serving, i)
			}
			continue
		}
		if w := c.workers[s.Current]; w != nil && w.Gen == bad {
			c.drain(w, "the roll-out failed")
		}
		c.renew(p, s, old)
		c.touch(slotRef(p, s))
		if s.Current == 0 && c.wants(p, s) {
			r.Active = append(r.Active, i)
			c.fill(p, s)
		}
	}
	r.Order, r.Pos = append(slices.Clone(r.Active), serving...), len(r.Active)
	r.Limit = len(r.Order)
	if pol.Halt {
		c.rolloutFailed(p, "halted: replaced workers stay, the others too")
		return
	}
	c.advance(p)
}

// retire drops the generations that nothing is started from and nothing runs of,
// and the pool itself when it was removed and has ended.
func (c *Core) retire(p *Pool) {
	if p.Rollout != nil && p.Rollout.Phase == PhaseWaiting {
		c.advance(p)
	}
	if len(p.Gens) == 1 && !p.Removed {
		return
	}
	var gone []Generation
	p.Gens = slices.DeleteFunc(p.Gens, func(g Generation) bool {
		if g.Live > 0 || !p.Removed && (g.Number == p.Gen || p.uses(g.Number) ||
			p.Rollout != nil && (g.Number == p.Rollout.From || g.Number == p.Rollout.To)) {
			return false
		}
		gone = append(gone, g)
		return true
	})
	if len(gone) == 0 && len(p.Gens) > 0 {
		return
	}
	c.touch(poolRef(p))
	for _, g := range gone {
		c.forgetLaunch(g.Spec.Launch, 0)
	}
	if p.Removed && p.Live == 0 {
		c.touchAll(p)
		delete(c.pools, p.Name)
		c.changed(Changed{What: WhatPoolRemoved, Pool: p.Name, Slot: -1})
		for _, op := range p.Awaiting {
			c.opDone(op)
		}
		p.Awaiting = nil
	}
	c.releaseUnwanted()
}

// uses reports whether a slot would start its next worker from the generation.
func (p *Pool) uses(gen uint64) bool {
	return slices.ContainsFunc(p.Slots, func(s Slot) bool { return s.Gen == gen })
}

// forgetLaunch tells the shell to let go of a launch unless something still needs
// it; keep is one that is about to be needed.
func (c *Core) forgetLaunch(launch, keep uint64) {
	if launch == 0 || launch == keep {
		return
	}
	for _, p := range c.pools {
		if p.Queued != nil && p.Queued.Spec.Launch == launch {
			return
		}
		for i := range p.Gens {
			if p.Gens[i].Spec.Launch == launch {
				return
			}
		}
	}
	c.do(Forget{launch})
}
