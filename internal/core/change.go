package core

import (
	"fmt"
	"reflect"
	"slices"

	"github.com/f72e338e/supervisord/internal/proto"
)

// A new configuration goes in two steps. First every socket that it adds is
// bound; if one fails, the others are closed again and nothing has changed. Then
// it is applied, which cannot fail: pools are added, removed, resized, and those
// whose workers would run differently are rolled out.

func (c *Core) configured(ev Configured) {
	c.ops[ev.Op] = &Operation{ID: ev.Op, Kind: ev.Kind, Begun: c.now, Pending: 1}
	c.touch(Ref{Kind: RefOperation, ID: uint64(ev.Op)}, Ref{Kind: RefMaster}, Ref{Kind: RefChange})
	ch := Change{Op: ev.Op, Kind: ev.Kind, Config: ev.Config, Force: ev.Force, Only: ev.Only}.clone()
	for i := range ch.Config.Listeners {
		if l := &ch.Config.Listeners[i]; l.Spec.Backlog <= 0 {
			l.Spec.Backlog = proto.DefaultBacklog
		}
	}
	if c.m.Stopping {
		c.refuse(&ch, "the master is stopping")
		return
	}
	if c.change != nil {
		c.waiting = append(c.waiting, ch)
		return
	}
	c.prepare(ch)
}

// prepare asks for the sockets that the configuration adds.
func (c *Core) prepare(next Change) {
	ch := &next
	c.change = ch
	c.touch(Ref{Kind: RefChange})
	for _, l := range ch.Config.Listeners {
		key := keyOf(l.Spec)
		h := c.configuredFor(l, key)
		if h == nil {
			if other := c.conflict(key); other != nil {
				c.abandon(fmt.Sprintf("listener %s: cannot bind %s: already in use by a handle that %s asked for", l.Name, key, other.Asker))
				return
			}
			key.Name = l.Name
			h = c.newHandle(key, l.Spec, l.Policy)
			h.Asker, h.Owner = "configuration", l.Exclusive
		}
		ch.Handles = append(ch.Handles, h.ID)
		if h.State == HandleBinding && !slices.Contains(ch.Binding, h.ID) {
			ch.Binding = append(ch.Binding, h.ID)
		}
	}
	if len(ch.Binding) == 0 {
		c.apply()
	}
}

// configuredFor finds the open handle that a configured listener means: the same
// place, whatever it was called before, or for a port chosen by the kernel the
// same name. A handle that a worker asked for becomes the listener's.
func (c *Core) configuredFor(l Listener, key proto.Key) *Handle {
	if l.Spec.Port == 0 && !proto.IsUnix(l.Spec.Network) || l.Spec.Inherit != "" {
		for _, ref := range c.m.Listeners {
			if h := c.handles[ref.Handle]; ref.Name == l.Name && h != nil && h.Key.Place() == key.Place() && h.Spec.Inherit == l.Spec.Inherit {
				return h
			}
		}
		return nil
	}
	for _, id := range c.places[key.Place()] {
		h := c.handles[id]
		if h.Spec.Inherit == l.Spec.Inherit && (h.Configured || h.Owner == "" && l.Exclusive == "") {
			return h
		}
	}
	return nil
}

// conflict finds a handle in the way of a new one at the same place.
func (c *Core) conflict(key proto.Key) *Handle {
	if key.Port == 0 && !proto.IsUnix(key.Network) {
		return nil
	}
	for _, id := range c.places[key.Place()] {
		return c.handles[id]
	}
	return nil
}

// changeBound: a socket of the change under way is there, or failed.
func (c *Core) changeBound(h *Handle, failure string) {
	ch := c.change
	if ch == nil || !slices.Contains(ch.Binding, h.ID) {
		return
	}
	ch.Binding = slices.DeleteFunc(ch.Binding, func(id proto.HandleID) bool { return id == h.ID })
	c.touch(Ref{Kind: RefChange})
	if failure != "" {
		c.abandon(failure)
		return
	}
	if len(ch.Binding) == 0 {
		c.apply()
	}
}

// abandon gives up the change under way: sockets made for it are closed (those
// still being bound, when they are), and nothing has changed.
func (c *Core) abandon(why string) {
	ch := c.change
	c.letGo(ch)
	c.refuse(ch, why)
	c.nextChange()
}

func (c *Core) letGo(ch *Change) {
	c.change = nil
	c.touch(Ref{Kind: RefChange})
	for _, id := range ch.Handles {
		if h := c.handles[id]; h != nil {
			c.unheld(h, nil)
		}
	}
}

// pinned reports whether the change under way needs the handle.
func (c *Core) pinned(h *Handle) bool {
	return c.change != nil && slices.Contains(c.change.Handles, h.ID)
}

func (c *Core) refuse(ch *Change, why string) {
	c.changed(Changed{What: WhatConfigRefused, Slot: -1, Op: ch.Op, Cause: why})
	for _, p := range ch.Config.Pools {
		c.forgetLaunch(p.Launch, 0)
	}
	c.opFailed(ch.Op, Result{Error: why})
}

func (c *Core) nextChange() {
	if c.change == nil && len(c.waiting) > 0 {
		next := c.waiting[0]
		c.waiting = slices.Delete(c.waiting, 0, 1)
		c.prepare(next)
	}
}

// apply carries out the change whose sockets are all bound.
func (c *Core) apply() {
	ch := c.change
	c.change = nil
	c.touch(Ref{Kind: RefMaster}, Ref{Kind: RefChange})
	c.m.Listeners, c.m.MaxHandles = nil, ch.Config.MaxHandles
	for i, l := range ch.Config.Listeners {
		h := c.handles[ch.Handles[i]]
		c.adjust(h, l)
		c.touch(handleRef(h))
		c.m.Listeners = append(c.m.Listeners, ListenerRef{l.Name, h.ID})
	}
	c.applying = true
	wanted := map[string]bool{}
	for _, spec := range ch.Config.Pools {
		wanted[spec.Name] = true
		if ch.Only == nil || slices.Contains(ch.Only, spec.Name) {
			c.applyPool(ch, spec)
		}
	}
	for _, p := range c.sortedPools() {
		if !wanted[p.Name] && !p.Removed && ch.Only == nil {
			c.removePool(p, ch.Op)
		}
	}
	c.applying = false
	c.checkReady()
	c.changed(Changed{What: WhatConfigApplied, Slot: -1, Op: ch.Op, Cause: ch.Kind})
	c.releaseUnwanted()
	c.opDone(ch.Op) // the part that was the change itself; pools still hold theirs
	c.nextChange()
}

func (c *Core) applyPool(ch *Change, spec PoolSpec) {
	var handles []proto.HandleID
	for _, name := range spec.Listeners {
		handles = append(handles, c.listener(name))
	}
	p := c.pools[spec.Name]
	if p == nil {
		p = &Pool{Name: spec.Name}
		c.pools[p.Name] = p
	}
	c.touch(poolRef(p))
	if p.LastGen == 0 || p.Removed { // new, or back before its workers were gone
		c.withdrawAwaiting(p)
		p.LastGen++
		c.touchAll(p)
		p.Gen, p.Slots, p.Removed = p.LastGen, nil, false
		p.Gens = append(p.Gens, Generation{Number: p.Gen, Spec: spec, Handles: handles})
		p.FileWish, p.Desired = spec.Desired, spec.Desired
		c.resize(p)
		c.await(p, ch.Op)
		return
	}
	resized := spec.Desired != p.FileWish
	if resized {
		p.FileWish, p.Desired = spec.Desired, spec.Desired
	}
	last, lastHandles := p.latest()
	if last.Fingerprint != spec.Fingerprint || !slices.Equal(lastHandles, handles) || !slices.Equal(last.Listeners, spec.Listeners) || slices.Contains(ch.Force, spec.Name) || p.mixed() {
		c.ops[ch.Op].Pending++
		c.replace(p, Queued{Kind: ch.Kind, Spec: spec, Handles: handles, Ops: []OpID{ch.Op}})
		c.resize(p)
		return
	}
	launch := last.Launch
	*last = spec
	last.Launch = launch
	c.forgetLaunch(spec.Launch, launch)
	if resized {
		c.resize(p)
		c.await(p, ch.Op)
	}
}

// latest returns what the pool runs or is about to run: of a queued roll-out, of
// the one under way, or of the generation it is on.
func (p *Pool) latest() (*PoolSpec, []proto.HandleID) {
	n := p.Gen
	switch {
	case p.Queued != nil:
		return &p.Queued.Spec, p.Queued.Handles
	case p.Rollout != nil && p.Rollout.Phase != PhaseReverting:
		n = p.Rollout.To
	}
	g := p.generation(n)
	return &g.Spec, g.Handles
}

// mixed reports whether a roll-out that was halted left slots on another generation.
func (p *Pool) mixed() bool {
	return p.Rollout == nil && slices.ContainsFunc(p.Slots, func(s Slot) bool { return s.Gen != p.Gen })
}

func (c *Core) listener(name string) proto.HandleID {
	for _, ref := range c.m.Listeners {
		if ref.Name == name {
			return ref.Handle
		}
	}
	panic("core: a pool names a listener that the configuration has not: " + name)
}

func (c *Core) removePool(p *Pool, op OpID) {
	p.Removed = true
	c.touch(poolRef(p))
	c.abortRollout(p, "the pool was removed")
	for i := range p.Slots {
		c.empty(p, &p.Slots[i], "the pool was removed")
	}
	c.rehome()
	if o := c.ops[op]; o != nil {
		o.Pending++
		p.Awaiting = append(p.Awaiting, op)
	}
	c.retire(p)
}

// releaseUnwanted closes configured handles that neither the configuration in
// force nor any generation lists, once nobody may want to go back to them.
func (c *Core) releaseUnwanted() {
	wanted := map[proto.HandleID]bool{}
	for _, ref := range c.m.Listeners {
		wanted[ref.Handle] = true
	}
	for _, p := range c.pools {
		for _, g := range p.Gens {
			for _, id := range g.Handles {
				wanted[id] = true
			}
		}
		if p.Queued != nil {
			for _, id := range p.Queued.Handles {
				wanted[id] = true
			}
		}
	}
	for _, h := range c.sortedHandles() {
		if h.Configured && !wanted[h.ID] && !c.pinned(h) {
			c.release(h, "no longer configured")
		}
	}
}

// adjust makes an open handle the configured listener's. What can change on an
// open socket does; the rest is said, and takes effect when it is bound again.
func (c *Core) adjust(h *Handle, l Listener) {
	if h.Policy != l.Policy {
		c.do(SetPolicy{Handle: h.ID, Policy: l.Policy})
		h.restMembers()
	}
	h.Configured, h.Key.Name, h.Policy, h.Linger, h.Owner, h.Asker = true, l.Name, l.Policy, 0, l.Exclusive, "configuration"
	if reflect.DeepEqual(h.Spec, l.Spec) {
		return
	}
	rest := h.Spec
	rest.Backlog = l.Spec.Backlog
	if h.Spec.Backlog != l.Spec.Backlog && !proto.IsDatagram(l.Spec.Network) {
		c.do(Relisten{Handle: h.ID, Backlog: l.Spec.Backlog})
	}
	if !reflect.DeepEqual(rest, l.Spec) {
		c.changed(Changed{What: WhatHandleKept, Slot: -1, Handle: h.ID, Name: l.Name, Address: h.Key.String(),
			Cause: "the socket is open and keeps its options; they change when the daemon is started anew"})
	}
	h.Spec = rest
}
