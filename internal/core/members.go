package core

import (
	"slices"
	"strconv"
	"strings"

	"github.com/f72e338e/supervisord/internal/proto"
)

// Under reuse_port a handle has a socket for each slot that holds it, its members
// (SO_REUSEPORT, socket(7)). The first is the handle's own. None is ever closed
// while the handle lives: the kernel would reset what is in its queue, and what is
// about to come there. So each has a slot as its owner, and workers of that slot
// accept on it one after the other. When the slot is gone another one's workers
// take the member too, as a spare, to which nothing new is steered:
//
//	slots 0 1 2 ──▶ members 0 1 2        pool shrinks to 2 ──▶ 0: members 0 and 2, 1: member 1
//	                                     pool grows again   ──▶ 2: member 2, from slot 0
//
// A handle whose policy is not reuse_port any more keeps its members as spares.

// hasMembers reports whether workers are given members of the handle.
func (h *Handle) hasMembers() bool {
	return h.Policy == proto.PolicyReusePort || len(h.Members) > 0
}

// takesMembers reports whether the worker can be given more than one socket of the
// handle. Of datagram sockets a spare gets nothing at all, so nobody needs it.
func (w *Worker) takesMembers(h *Handle) bool {
	return w.can(proto.FeatureMembers) && !proto.IsDatagram(h.Key.Network)
}

// membersFor returns the members that a worker is granted, its own first.
func (c *Core) membersFor(w *Worker, h *Handle) []int {
	if len(h.Members) == 0 {
		h.Members = []Member{{}} // the handle's own socket
	}
	c.touch(handleRef(h))
	own := 0 // under any other policy all have the first one
	if h.Policy == proto.PolicyReusePort {
		own = h.ownMember(w.owner())
		c.leaveSpare(h, own, w.owner())
		h.Members[own] = Member{Owner: w.owner()}
	}
	list := []int{own}
	for i := range h.Members {
		m := &h.Members[i]
		if i == own || i == 0 && h.Policy != proto.PolicyReusePort {
			continue
		}
		if m.Owner == "" && w.takesMembers(h) {
			m.Owner, m.Spare = w.owner(), true
		}
		if m.Owner == w.owner() {
			list = append(list, i)
		}
	}
	return list
}

// ownMember finds the member that a slot is to have for itself: the one it has, one
// that nobody has, a spare of another, or a new one.
func (h *Handle) ownMember(owner string) int {
	for _, fits := range []func(m Member) bool{
		func(m Member) bool { return m.Owner == owner && !m.Spare },
		func(m Member) bool { return m.Owner == owner },
		func(m Member) bool { return m.Owner == "" },
		func(m Member) bool { return m.Spare },
	} {
		if i := slices.IndexFunc(h.Members, fits); i >= 0 {
			return i
		}
	}
	h.Members = append(h.Members, Member{})
	return len(h.Members) - 1
}

// leaveSpare tells who took care of a member that the slot which it is for has a worker
// again: two that accept on it would have each other's connections in their counts.
func (c *Core) leaveSpare(h *Handle, member int, owner string) {
	m := h.Members[member]
	if !m.Spare || m.Owner == "" || m.Owner == owner {
		return
	}
	for _, w := range c.holdersOf(h) {
		if w.owner() == m.Owner && w.takesMembers(h) {
			c.do(Send{Worker: w.ID, Envelope: proto.Envelope{Body: proto.Member{Handle: h.ID, Socket: member, Gone: true}}})
		}
	}
}

// orphan finds another slot for the member of a worker that closes its listener and
// goes on. When it listens again it gets one back.
func (c *Core) orphan(w *Worker, h *Handle) {
	if h.Policy != proto.PolicyReusePort || !w.Attached || w.State != Ready && w.State != Starting {
		return
	}
	for _, o := range c.holdersOf(h) {
		if o.owner() == w.owner() {
			return // its successor, say
		}
	}
	for i := range h.Members {
		if m := &h.Members[i]; m.Owner == w.owner() {
			m.Owner, m.Spare = "", true
			c.touch(handleRef(h))
			c.adopt(h, i, "its slot listens no more")
		}
	}
}

// restMembers makes spares of all members but the first, at a change of policy. A
// slot gets its own back if the policy comes back.
func (h *Handle) restMembers() {
	for i := range h.Members {
		h.Members[i].Spare = true
	}
}

// rehome finds another slot for members whose own is gone.
func (c *Core) rehome() {
	for _, h := range c.sortedHandles() {
		for i := range h.Members {
			if m := &h.Members[i]; m.Owner != "" && !c.slotExists(m.Owner) {
				m.Owner, m.Spare = "", true
				c.touch(handleRef(h))
				c.adopt(h, i, "its slot is gone")
			}
		}
	}
}

func (c *Core) slotExists(owner string) bool {
	pool, slot, _ := strings.Cut(owner, "/")
	p, n := c.pools[pool], -1
	if i, err := strconv.Atoi(slot); err == nil {
		n = i
	}
	return p != nil && !p.Removed && p.slot(n) != nil
}

// adopt gives a member without an owner to the slot that has the fewest, and to
// those of its workers that hold the handle now. Without such a worker the next
// one that asks for the handle takes it.
func (c *Core) adopt(h *Handle, member int, cause string) {
	has := map[string]int{}
	for _, m := range h.Members {
		has[m.Owner]++
	}
	var best string
	takers := map[string][]*Worker{}
	for _, w := range c.holdersOf(h) {
		if !w.Attached || !w.takesMembers(h) {
			continue
		}
		o := w.owner()
		takers[o] = append(takers[o], w)
		if best == "" || has[o] < has[best] {
			best = o
		}
	}
	if best == "" {
		return
	}
	h.Members[member].Owner = best
	for _, w := range takers[best] {
		ch := w.of(WhatHandleAdopted)
		ch.Handle, ch.Address, ch.Name = h.ID, h.Bound.Address, h.Key.Name
		ch.Cause = cause
		c.changed(ch)
		c.do(Send{Worker: w.ID, Handle: h.ID, Members: []int{member}, Envelope: proto.Envelope{Body: proto.Member{Handle: h.ID, Socket: member}}})
	}
}

// lookAfter: of those who wait on a socket the kernel may wake one only, and that
// one may be the worker that has just gone. Another holder is told to look; a
// successor that is still to come does so by itself.
func (c *Core) lookAfter(gone *Worker, h *Handle) {
	if h.Holders == 0 || proto.IsDatagram(h.Key.Network) || proto.IsDispatched(h.Policy) {
		return
	}
	p, n := c.pools[gone.Pool], lookers
	if h.Policy == proto.PolicyReusePort {
		n = 1 // only its slot has the same member
	}
	for i := range min(len(p.Slots), n) {
		s := p.slot((gone.Slot + i) % len(p.Slots))
		if w := c.workers[s.Current]; w != nil && w.State == Ready && w.can(proto.FeatureLook) && slices.Contains(w.Holds, h.ID) {
			c.do(Send{Worker: w.ID, Envelope: proto.Envelope{Body: proto.Look{Handle: h.ID}}})
			return
		}
	}
}

// lookers is how many slots are tried, from the one on that lost its worker.
const lookers = 8
