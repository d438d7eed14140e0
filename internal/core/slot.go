package core

import (
	"fmt"
	"slices"
)

func (p *Pool) slot(index int) *Slot {
	if index < 0 || index >= len(p.Slots) {
		return nil
	}
	return &p.Slots[index]
}

func (p *Pool) generation(n uint64) *Generation {
	for i := range p.Gens {
		if p.Gens[i].Number == n {
			return &p.Gens[i]
		}
	}
	return nil
}

// wants reports whether the slot is to have a worker.
func (c *Core) wants(p *Pool, s *Slot) bool {
	return !c.m.Stopping && !p.Removed && s.Index < p.Desired && !s.Done
}

// fill starts a worker in a slot that should have one and has none.
func (c *Core) fill(p *Pool, s *Slot) {
	if s.Current != 0 || s.RetryAt != 0 || s.After != 0 || !c.wants(p, s) {
		return
	}
	if s.Next != 0 { // the successor is on its way; it now is all there is
		s.Current, s.Next = s.Next, 0
		c.touch(slotRef(p, s))
		return
	}
	s.Current = c.spawn(p, s).ID
}

// serving: the attached worker became ready.
func (c *Core) serving(w *Worker) {
	p := c.pools[w.Pool]
	s := p.slot(w.Slot)
	if s.Next == w.ID {
		old := c.workers[s.Current]
		s.Next = 0
		if old != nil {
			c.drain(old, fmt.Sprintf("replaced by worker %d", w.ID))
		}
		s.Current = w.ID
	}
	c.setServing(p, s, true)
	c.rolloutReady(p, s, w)
	c.settle(p)
}

// setServing keeps the pool's number of slots that serve.
func (c *Core) setServing(p *Pool, s *Slot, on bool) {
	c.touch(slotRef(p, s), poolRef(p))
	if s.Serving == on {
		return
	}
	s.Serving = on
	if on {
		p.ReadySlots++
	} else {
		p.ReadySlots--
	}
}

// notServing: the worker is still attached, and serves no more.
func (c *Core) notServing(w *Worker) {
	p := c.pools[w.Pool]
	if s := p.slot(w.Slot); s != nil && s.Current == w.ID {
		c.setServing(p, s, false)
	}
}

// detach takes the worker out of its slot.
func (c *Core) detach(w *Worker) {
	if !w.Attached {
		return
	}
	w.Attached = false
	p := c.pools[w.Pool]
	s := p.slot(w.Slot)
	c.touch(slotRef(p, s), workerRef(w))
	switch w.ID {
	case s.Current:
		s.Current = 0
		c.setServing(p, s, false)
	case s.Next:
		s.Next = 0
	}
}

// lose detaches a worker that was not told to go, and decides when the slot gets
// another. clean means that nothing went wrong: it exited with 0 or left by
// itself. The first restart after a good worker comes at once; then the delay
// doubles from restart_delay to restart_max_delay, and over max_restarts in
// restart_window on_limit decides.
func (c *Core) lose(w *Worker, text string, clean bool) {
	if !w.Attached {
		return // it was told to go, so its slot has another already
	}
	p := c.pools[w.Pool]
	s := p.slot(w.Slot)
	succeeding := s.Next == w.ID
	c.detach(w)
	if s.Next != 0 { // its successor is on the way already
		s.Restarts++
		c.rolloutLost(p, s, w, text)
		c.fill(p, s)
		return
	}
	spec := &p.generation(s.Gen).Spec
	good := w.ReadyAt != 0 && c.now.Sub(w.ReadyAt) >= spec.Timeouts.MinUptime
	if c.rolloutLost(p, s, w, text) || succeeding || c.m.Stopping || p.Removed {
		c.fill(p, s)
		return
	}
	if spec.Restart.Policy == "never" || spec.Restart.Policy == "on-failure" && clean {
		s.Done = true
		p.DoneSlots++
		ch := w.of(WhatSlotDone)
		ch.Cause = text
		c.changed(ch)
		c.awaitFailed(p, w, text)
		return
	}
	s.Restarts++
	if good {
		s.InRow, s.Limited, s.Failures = 0, false, nil
		c.fill(p, s)
		return
	}
	c.backoff(p, s, w, text)
	c.awaitFailed(p, w, text)
}

func (c *Core) backoff(p *Pool, s *Slot, w *Worker, text string) {
	r := &p.generation(s.Gen).Spec.Restart
	s.InRow++
	s.Failures = slices.DeleteFunc(s.Failures, func(t Time) bool { return c.now.Sub(t) > r.Window })
	s.Failures = append(s.Failures, c.now)
	if s.Index >= p.Desired {
		return
	}
	delay := r.MaxDelay
	if shift := s.InRow - 1; shift < 32 && r.Delay<<shift > 0 {
		delay = min(delay, r.Delay<<shift)
	}
	delay = c.jitter(delay)
	what := WhatSlotBackoff
	if r.Max > 0 && (s.Limited || len(s.Failures) > r.Max) { // a slow try that fails is followed by another slow one
		s.Limited = true
		what = WhatSlotFailed
		switch r.OnLimit {
		case LimitStop:
			s.Done = true
			p.DoneSlots++
			delay = 0
		case LimitExit:
			delay = 0
			defer c.stop(StopAsked{Code: 1})
		default:
			delay = max(r.Window, delay)
			s.Failures = s.Failures[max(0, len(s.Failures)-r.Max):]
		}
	}
	if delay > 0 {
		s.RetryAt = c.now.Add(delay)
		c.arm(s.RetryAt, slotRef(p, s))
	}
	ch := w.of(what)
	ch.PID = 0
	ch.Cause, ch.Attempt, ch.Delay = text, s.InRow, delay
	c.changed(ch)
}

// resize brings the slots to the pool's wish: new ones are filled at once, those
// that are too many are drained, the highest first.
func (c *Core) resize(p *Pool) {
	gen := p.Gen
	if p.Rollout != nil {
		gen = p.Rollout.To
	}
	for i := len(p.Slots); i < p.Desired; i++ {
		p.Slots = append(p.Slots, Slot{Index: i, Gen: gen})
	}
	c.touch(poolRef(p))
	for i := len(p.Slots) - 1; i >= p.Desired; i-- {
		c.empty(p, &p.Slots[i], "the pool is smaller now")
	}
	if len(p.Slots) > p.Desired {
		p.Slots = p.Slots[:p.Desired]
		c.rehome()
	}
	for i := range p.Desired {
		c.fill(p, &p.Slots[i])
	}
}

// empty drains what a slot has and takes away what it waits for.
func (c *Core) empty(p *Pool, s *Slot, cause string) {
	s.RetryAt, s.After = 0, 0
	if s.Done {
		s.Done = false
		p.DoneSlots--
	}
	c.touch(slotRef(p, s))
	for _, id := range []workerID{s.Next, s.Current} {
		if w := c.workers[id]; w != nil {
			c.drain(w, cause)
		}
	}
	c.rolloutSkips(p, s)
}
