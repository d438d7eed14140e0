package core

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/f72e338e/supervisord/internal/proto"
)

// listen answers a worker's request for a socket: with a grant, an error, or
// later, when the socket is bound.
func (c *Core) listen(w *Worker, req uint64, m proto.Listen) {
	h, key, err := c.find(w, m)
	if err != nil {
		c.refuseListen(w, req, m, err)
		return
	}
	if h == nil {
		h = c.request(w, key, m)
	} else {
		c.noteWish(w, h, m)
	}
	if h.State == HandleBinding {
		h.Waiters = append(h.Waiters, Waiter{w.ID, req})
		w.Waits = append(w.Waits, h.ID)
		c.touch(handleRef(h), workerRef(w))
		return
	}
	c.grant(w, h, req)
}

// request makes a handle for a worker, and asks for its socket.
func (c *Core) request(w *Worker, key proto.Key, m proto.Listen) *Handle {
	spec := proto.SocketSpec{
		Network: m.Network, Address: key.Address, Port: m.Port, Backlog: m.Backlog, IPv6Only: m.IPv6Only,
		Mode: m.Mode, ReadableAll: m.ReadableAll, WritableAll: m.WritableAll,
	}
	if proto.IsUnix(key.Network) && !strings.HasPrefix(key.Address, "@") {
		confine := c.spec(w).Confine
		if c.spec(w).AllowSet { // the rule named the path, so it is not below the working directory only
			confine.Directory = "/"
		}
		spec.Confine = &confine
	}
	h := c.newHandle(key, spec, cmp.Or(m.Policy, proto.PolicyShared))
	h.Asker, h.Owner = w.owner(), key.Owner
	return h
}

func (c *Core) newHandle(key proto.Key, spec proto.SocketSpec, policy string) *Handle {
	if spec.Backlog <= 0 {
		spec.Backlog = proto.DefaultBacklog
	}
	spec.Backlog = min(spec.Backlog, math.MaxInt32) // listen(2) takes an int
	h := &Handle{ID: c.m.NextHandle, Key: key, Spec: spec, Policy: policy, State: HandleBinding}
	c.m.NextHandle++
	c.handles[h.ID] = h
	c.index(h)
	c.touch(handleRef(h), Ref{Kind: RefMaster})
	c.do(Bind{Handle: h.ID, Spec: spec, Policy: policy})
	return h
}

// index enters the handle under its place. A configured port chosen by the kernel
// is found by its name only.
func (c *Core) index(h *Handle) {
	if h.Key.Name != "" && h.Key.Port == 0 && !proto.IsUnix(h.Key.Network) {
		return
	}
	c.places[h.Key.Place()] = append(c.places[h.Key.Place()], h.ID)
}

func (c *Core) bound(ev BoundHandle) {
	h := c.handles[ev.Handle]
	if h == nil {
		return
	}
	h.Bound = ev.Bound
	c.touch(handleRef(h))
	if h.State == HandleOpen { // it was only told to listen again
		return
	}
	h.State = HandleOpen
	c.changed(c.about(h, WhatHandleOpen))
	waiters := h.Waiters
	h.Waiters = nil
	for _, wt := range waiters {
		w := c.workers[wt.Worker]
		w.Waits = slices.DeleteFunc(w.Waits, func(id proto.HandleID) bool { return id == h.ID })
		c.grant(w, h, wt.Req)
	}
	c.changeBound(h, "")
	if h.Holders == 0 && !h.Configured && !c.awaitAskers(h) {
		c.unheld(h, nil)
	}
	c.maybeQuit()
}

// bindFailed: every waiter gets the error, and the entry is forgotten, so that
// the next asker tries anew.
func (c *Core) bindFailed(ev BindFailed) {
	h := c.handles[ev.Handle]
	if h == nil {
		return
	}
	ch := c.about(h, WhatHandleFailed)
	ch.Cause = ev.Error.Message
	c.changed(ch)
	if h.State == HandleOpen {
		return
	}
	for _, wt := range h.Waiters {
		w := c.workers[wt.Worker]
		w.Waits = slices.DeleteFunc(w.Waits, func(id proto.HandleID) bool { return id == h.ID })
		c.touch(workerRef(w))
		c.do(Send{Worker: w.ID, Envelope: proto.Envelope{Re: wt.Req, Body: ev.Error}})
	}
	h.Waiters = nil
	c.forget(h)
	c.changeBound(h, fmt.Sprintf("listener %s: %s", h.Key.Name, ev.Error.Message))
	c.maybeQuit()
}

// hold makes the worker a holder.
func (c *Core) hold(w *Worker, h *Handle) {
	w.Holds = append(w.Holds, h.ID)
	h.Holders++
	h.Linger = 0
	c.touch(workerRef(w), handleRef(h))
	ch := w.of(WhatHandleGranted)
	ch.Handle, ch.Address, ch.Name = h.ID, h.Bound.Address, h.Key.Name
	c.changed(ch)
}

func (c *Core) grant(w *Worker, h *Handle, req uint64) {
	c.hold(w, h)
	g := proto.Grant{
		Handle: h.ID, Network: h.Key.Network, Address: h.Bound.Address, Backlog: h.Bound.Backlog,
		Name: c.pools[w.Pool].generation(w.Gen).nameOf(h.ID), NoDelay: h.Spec.NoDelay, KeepAlive: h.Spec.KeepAlive,
	}
	send := Send{Worker: w.ID, Handle: h.ID}
	switch {
	case proto.IsDispatched(h.Policy) && w.can(proto.FeatureHandover) && !proto.IsDatagram(h.Key.Network):
		g.Policy, g.Tuned = h.Policy, !proto.IsUnix(h.Key.Network)
	case h.hasMembers():
		send.Members = c.membersFor(w, h)
		if w.takesMembers(h) {
			g.Policy, g.Sockets, g.Numbers = proto.PolicyReusePort, len(send.Members), send.Members
		} else {
			send.Members = send.Members[:1]
		}
	}
	send.Envelope = proto.Envelope{Re: req, Body: g}
	c.do(send)
	c.listeningMakesReady(w)
}

// noteWish keeps a backlog that was asked for in vain: the first asker's counts.
func (c *Core) noteWish(w *Worker, h *Handle, m proto.Listen) {
	if m.Backlog == 0 || m.Backlog == h.Spec.Backlog || proto.IsDatagram(h.Key.Network) {
		return
	}
	wish := Wish{w.owner(), m.Backlog}
	if slices.Contains(h.Wishes, wish) || len(h.Wishes) >= 16 {
		return
	}
	h.Wishes = append(h.Wishes, wish)
	c.touch(handleRef(h))
	ch := c.about(h, WhatHandleBacklog)
	ch.Pool, ch.Slot, ch.Worker = w.Pool, w.Slot, w.ID
	ch.From, ch.To = strconv.Itoa(m.Backlog), strconv.Itoa(h.Spec.Backlog)
	ch.Cause = "the first asker's counts: " + h.Asker
	c.changed(ch)
}

// dropHold: the worker does not hold the handle any more.
func (c *Core) dropHold(w *Worker, h *Handle) {
	c.unhold(w, h)
	if w.State != Gone {
		c.do(Withdraw{w.ID, h.ID})
		c.orphan(w, h)
	}
	c.lookAfter(w, h)
	c.unheld(h, w)
}

func (c *Core) unhold(w *Worker, h *Handle) {
	w.Holds = slices.DeleteFunc(w.Holds, func(id proto.HandleID) bool { return id == h.ID })
	h.Holders--
	h.left(w, c.now)
	c.touch(workerRef(w), handleRef(h))
}

// stopWaiting: the worker that waited for a bind is gone.
func (c *Core) stopWaiting(w *Worker, h *Handle) {
	w.Waits = slices.DeleteFunc(w.Waits, func(id proto.HandleID) bool { return id == h.ID })
	h.Waiters = slices.DeleteFunc(h.Waiters, func(wt Waiter) bool { return wt.Worker == w.ID })
	c.touch(handleRef(h))
}

// unheld decides about a requested handle that lost a holder. When it was the
// last one and its slot is to be served by another worker that may still ask
// for it, the socket lingers and keeps its accept queue; otherwise it closes at
// once, as in the reference.
func (c *Core) unheld(h *Handle, last *Worker) {
	if h.Holders > 0 || len(h.Waiters) > 0 || h.State != HandleOpen || c.pinned(h) {
		return
	}
	if c.m.Stopping { // a client is refused at once rather than queued for nobody
		c.release(h, "the master stops")
		return
	}
	if h.Configured {
		return
	}
	if last != nil {
		p := c.pools[last.Pool]
		s := p.slot(last.Slot)
		if d := p.generation(last.Gen).Spec.Timeouts.Linger; s != nil && c.wants(p, s) && !s.Serving && d > 0 {
			c.linger(h, d, last)
			return
		}
	}
	if last == nil {
		c.release(h, "nobody wants it")
		return
	}
	c.release(h, "its last holder closed it")
}

// linger keeps a handle that nobody holds for a while; last is who held it, or nil.
func (c *Core) linger(h *Handle, d time.Duration, last *Worker) {
	h.Linger = c.now.Add(d)
	c.arm(h.Linger, handleRef(h))
	c.touch(handleRef(h))
	ch := c.about(h, WhatHandleLinger)
	ch.Delay = d
	if last != nil {
		ch.Pool, ch.Slot, ch.Worker = last.Pool, last.Slot, last.ID
	}
	c.changed(ch)
}

// release closes an open handle. Holders, if any, keep their own descriptors.
func (c *Core) release(h *Handle, cause string) {
	if h.State == HandleBinding {
		return // it is closed when it is bound and nobody wants it
	}
	for _, w := range c.holdersOf(h) {
		w.Holds = slices.DeleteFunc(w.Holds, func(id proto.HandleID) bool { return id == h.ID })
		c.touch(workerRef(w))
	}
	ch := c.about(h, WhatHandleClosed)
	ch.Cause = cause
	c.changed(ch)
	c.do(Release{h.ID})
	c.forget(h)
}

func (c *Core) holdersOf(h *Handle) []*Worker {
	if h.Holders == 0 {
		return nil
	}
	return slices.DeleteFunc(c.sortedWorkers(), func(w *Worker) bool { return !slices.Contains(w.Holds, h.ID) })
}

func (c *Core) forget(h *Handle) {
	delete(c.handles, h.ID)
	place := h.Key.Place()
	c.places[place] = slices.DeleteFunc(c.places[place], func(id proto.HandleID) bool { return id == h.ID })
	if len(c.places[place]) == 0 {
		delete(c.places, place)
	}
	c.touch(handleRef(h))
}

func (c *Core) about(h *Handle, what string) Changed {
	address := h.Key.Place().String()
	if h.Bound.Address != "" {
		address = h.Key.Network + " " + h.Bound.Address
	}
	return Changed{What: what, Slot: -1, Handle: h.ID, Address: address, Name: h.Key.Name, Backlog: h.Bound.Backlog}
}

func (c *Core) refuseListen(w *Worker, req uint64, m proto.Listen, e *proto.Error) {
	ch := w.of(WhatWorkerRefused)
	ch.Address, ch.Name, ch.Cause = m.Network+" "+proto.HostPort(m.Address, m.Port), m.Name, e.Message
	switch {
	case m.Name != "":
		ch.Address = ""
	case proto.IsUnix(m.Network):
		ch.Address = m.Network + " " + m.Address
	}
	c.refused(w, ch)
	c.do(Send{Worker: w.ID, Envelope: proto.Envelope{Re: req, Body: *e}})
}
