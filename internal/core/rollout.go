package core

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/f72e338e/supervisord/internal/proto"
)

// Phases of a roll-out.
//
//	waiting ──▶ replacing ──first batch──▶ watching ──▶ replacing ──▶ finishing ──▶ done
//	                │                         │             │             │
//	                └────────────── a new worker failed ────┴─────────────┘
//	                                          ▼
//	                             reverting ──▶ failed     (or failed at once: halt)
const (
	PhaseWaiting   = "waiting"   // too many generations still drain
	PhaseReplacing = "replacing" // workers are being replaced
	PhaseWatching  = "watching"  // the first batch is watched for monitor
	PhaseFinishing = "finishing" // all are watched for monitor
	PhaseReverting = "reverting" // back to the old generation
)

// Rollout replaces a pool's workers by those of another generation.
type Rollout struct {
	Kind     string         `json:"kind"` // of the command: "reload", "restart"
	From     uint64         `json:"from"`
	To       uint64         `json:"to"`
	Phase    string         `json:"phase"`
	Order    []int          `json:"order"` // slots to replace; never changed, so it may be shared
	Pos      int            `json:"pos"`   // how many of Order were begun
	Limit    int            `json:"limit"` // how many may be begun in this phase
	Active   []int          `json:"active,omitempty"`
	Replaced int            `json:"replaced"`
	Begun    Time           `json:"begun"`
	Deadline Time           `json:"deadline,omitempty"`
	Ops      []OpID         `json:"ops,omitempty"`
	Cause    string         `json:"cause,omitempty"` // why it reverts
	Culprit  proto.WorkerID `json:"culprit,omitempty"`
}

// Queued is a roll-out that waits for the one under way; a later one takes its place.
type Queued struct {
	Kind    string           `json:"kind"`
	Spec    PoolSpec         `json:"spec"`
	Handles []proto.HandleID `json:"handles,omitempty"`
	Ops     []OpID           `json:"ops,omitempty"`
}

// replace brings the pool to a new generation made from q.
func (c *Core) replace(p *Pool, q Queued) {
	c.touch(poolRef(p))
	if p.Rollout != nil {
		if p.Queued != nil { // only the newest wish is carried out; all who asked wait for it
			q.Ops = append(slices.Clone(p.Queued.Ops), q.Ops...)
			c.forgetLaunch(p.Queued.Spec.Launch, q.Spec.Launch)
		}
		p.Queued = &q
		c.changed(Changed{What: WhatRolloutQueued, Pool: p.Name, Slot: -1, Cause: q.Kind})
		return
	}
	p.LastGen++
	p.Gens = append(p.Gens, Generation{Number: p.LastGen, Spec: q.Spec, Handles: q.Handles})
	r := &Rollout{Kind: q.Kind, From: p.Gen, To: p.LastGen, Phase: PhaseWaiting, Begun: c.now, Ops: q.Ops}
	for i := range p.Slots {
		r.Order = append(r.Order, i)
	}
	slices.SortStableFunc(r.Order, func(a, b int) int {
		n := cmp.Compare(p.Slots[a].Current, p.Slots[b].Current)
		if !q.Spec.Rollout.Oldest && p.Slots[a].Current != 0 && p.Slots[b].Current != 0 {
			n = -n // newest first; slots without a worker first of all
		}
		return n
	})
	pol := q.Spec.Rollout
	r.Limit = min(len(r.Order), max(1, pol.MaxSurge+pol.MaxUnavailable))
	p.Rollout = r
	c.changed(Changed{What: WhatRolloutStarted, Pool: p.Name, Slot: -1, Gen: r.To, Cause: q.Kind})
	c.advance(p)
}

func (p *Pool) liveGenerations() int {
	n := 0
	for i := range p.Gens {
		if p.Gens[i].Live > 0 {
			n++
		}
	}
	return n
}

// advance takes a roll-out as far as it can go now.
func (c *Core) advance(p *Pool) {
	r := p.Rollout
	if r == nil || r.Deadline != 0 {
		return
	}
	c.touch(poolRef(p))
	pol := p.generation(r.To).Spec.Rollout
	switch r.Phase {
	case PhaseWaiting:
		if pol.MaxGenerations > 0 && p.liveGenerations() >= max(2, pol.MaxGenerations) {
			return
		}
		r.Phase = PhaseReplacing
	case PhaseWatching:
		r.Phase, r.Limit = PhaseReplacing, len(r.Order)
	case PhaseFinishing:
		c.rolloutDone(p)
		return
	}
	for r.Pos < r.Limit {
		s := p.slot(r.Order[r.Pos])
		if s == nil || s.Gen == r.To && c.isOf(s.Current, r.To) {
			r.Pos++
			continue
		}
		if !c.activate(p, s, pol) {
			break
		}
		r.Pos++
	}
	if len(r.Active) > 0 || r.Pos < r.Limit {
		return
	}
	switch {
	case r.Phase == PhaseReverting:
		c.rolloutFailed(p, "rolled back to generation "+fmt.Sprint(r.To))
	case pol.Monitor > 0 && len(r.Order) > 0:
		r.Phase = PhaseFinishing
		if r.Pos < len(r.Order) {
			r.Phase = PhaseWatching
		}
		r.Deadline = c.now.Add(pol.Monitor)
		c.arm(r.Deadline, poolRef(p))
		c.changed(Changed{What: WhatRolloutWatching, Pool: p.Name, Slot: -1, Gen: r.To, Delay: pol.Monitor, To: r.Phase})
	case r.Pos < len(r.Order):
		r.Limit = len(r.Order)
		c.advance(p)
	default:
		c.rolloutDone(p)
	}
}

func (c *Core) isOf(id workerID, gen uint64) bool {
	w := c.workers[id]
	return w != nil && w.Gen == gen
}

// activate begins to replace what the slot has, successor first where max_surge
// allows, else the old one goes first. It returns false when neither is allowed now.
func (c *Core) activate(p *Pool, s *Slot, pol RolloutPolicy) bool {
	r := p.Rollout
	surge, gap := 0, 0
	for _, i := range r.Active {
		if a := &p.Slots[i]; a.Next != 0 {
			surge++
		} else {
			gap++
		}
	}
	switch {
	case s.Current == 0:
		c.renew(p, s, r.To)
	case surge < pol.MaxSurge:
		c.renew(p, s, r.To)
		s.Next = c.spawn(p, s).ID
	case gap < pol.MaxUnavailable:
		c.renew(p, s, r.To)
		s.After = s.Current
		c.drain(c.workers[s.Current], "to be replaced")
	default:
		return false
	}
	r.Active = append(r.Active, s.Index)
	c.touch(slotRef(p, s))
	c.fill(p, s)
	return true
}

// renew gives the slot another generation and a clean record.
func (c *Core) renew(p *Pool, s *Slot, gen uint64) {
	if s.Done {
		s.Done = false
		p.DoneSlots--
	}
	s.Gen = gen
	s.InRow, s.Limited, s.Failures, s.RetryAt = 0, false, nil, 0
}

// rolloutReady: a worker of the slot became ready.
func (c *Core) rolloutReady(p *Pool, s *Slot, w *Worker) {
	r := p.Rollout
	if r == nil || w.Gen != r.To || !slices.Contains(r.Active, s.Index) {
		return
	}
	r.Active = slices.DeleteFunc(r.Active, func(i int) bool { return i == s.Index })
	r.Replaced++
	ch := w.of(WhatRolloutReplaced)
	ch.Result = fmt.Sprintf("%d of %d", r.Replaced, len(r.Order))
	c.changed(ch)
	c.advance(p)
}

// rolloutSkips: the slot is no more.
func (c *Core) rolloutSkips(p *Pool, s *Slot) {
	if r := p.Rollout; r != nil && slices.Contains(r.Active, s.Index) {
		r.Active = slices.DeleteFunc(r.Active, func(i int) bool { return i == s.Index })
		c.advance(p)
	}
}

func (c *Core) rolloutDone(p *Pool) {
	r := p.Rollout
	p.Gen = r.To
	ch := Changed{What: WhatRolloutDone, Pool: p.Name, Slot: -1, Gen: r.To, Took: c.now.Sub(r.Begun), Cause: r.Kind}
	c.changed(ch)
	p.Rollout = nil
	for _, op := range r.Ops {
		c.opDone(op)
	}
	c.rolloutOver(p)
}

func (c *Core) rolloutFailed(p *Pool, what string) {
	r := p.Rollout
	c.changed(Changed{What: WhatRolloutReverted, Pool: p.Name, Slot: -1, Gen: p.Gen, Cause: r.Cause, Result: what})
	p.Rollout = nil
	for _, op := range r.Ops {
		c.opFailed(op, Result{Error: r.Cause + "; " + what, Pool: p.Name, Worker: r.Culprit})
	}
	c.rolloutOver(p)
}

func (c *Core) rolloutOver(p *Pool) {
	c.touch(poolRef(p))
	if q := p.Queued; q != nil {
		p.Queued = nil
		c.replace(p, *q)
	}
	c.retire(p)
	c.settle(p)
}
