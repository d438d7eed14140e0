package core

import (
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/f72e338e/supervisord/internal/proto"
)

// keyOf returns the key that a configured listener is found by.
func keyOf(s proto.SocketSpec) proto.Key {
	network, address := canonical(s.Network, s.Address, "/")
	return proto.Key{Network: network, Address: address, Port: s.Port}
}

// canonical brings an address to the one spelling that keys use: tcp4 and tcp6
// only matter for the wildcard, IPs as netip writes them, paths clean and absolute.
func canonical(network, address, directory string) (string, string) {
	if proto.IsUnix(network) {
		if strings.HasPrefix(address, "@") {
			return network, address
		}
		if !path.IsAbs(address) {
			address = path.Join(directory, address)
		}
		return network, path.Clean(address)
	}
	base := network[:3]
	if address == "" {
		switch network[3:] {
		case "4":
			address = "0.0.0.0"
		case "6":
			return base + "6", "::"
		}
		return base, address
	}
	if a, err := netip.ParseAddr(address); err == nil {
		address = a.Unmap().String()
	}
	return base, address
}

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

// find resolves a request: an existing handle that the worker may have, the key
// for a new one, or why not.
func (c *Core) find(w *Worker, m proto.Listen) (*Handle, proto.Key, *proto.Error) {
	g := c.pools[w.Pool].generation(w.Gen)
	if m.Name != "" {
		for _, id := range g.Handles {
			if h := c.handles[id]; h != nil && h.Key.Name == m.Name {
				return h, h.Key, c.mayHold(w, h, m.Exclusive)
			}
		}
		return nil, proto.Key{}, errorf(syscall.ENOENT, "pool %s has no listener %q (its listeners: %s)", w.Pool, m.Name, strings.Join(g.Spec.Listeners, ", "))
	}
	if !proto.KnownNetwork(m.Network) {
		return nil, proto.Key{}, errorf(syscall.EINVAL, "unknown network %q (%s)", m.Network, strings.Join(proto.Networks, ", "))
	}
	if err := checkAddress(m); err != nil {
		return nil, proto.Key{}, err
	}
	network, address := canonical(m.Network, m.Address, g.Spec.Confine.Directory)
	key := proto.Key{Network: network, Address: address, Port: m.Port}
	if m.Port == 0 && !proto.IsUnix(network) {
		key.Index = c.freeIndex(w, key)
	}
	if h := c.at(key); h != nil {
		return h, key, c.mayHold(w, h, m.Exclusive)
	}
	if err := c.allowed(g, key); err != nil {
		return nil, key, err
	}
	if m.Exclusive {
		if proto.IsDatagram(network) {
			return nil, key, errorf(syscall.EINVAL, "a datagram socket cannot be exclusive")
		}
		key.Owner = w.owner()
	}
	return nil, key, nil
}

func checkAddress(m proto.Listen) *proto.Error {
	switch {
	case proto.IsUnix(m.Network) && m.Address == "":
		return errorf(syscall.EINVAL, "a Unix socket needs a path")
	case proto.IsUnix(m.Network):
		return nil
	case m.Port < 0 || m.Port > 65535:
		return errorf(syscall.EINVAL, "port %d is out of range (0 to 65535)", m.Port)
	}
	if _, err := netip.ParseAddr(m.Address); m.Address != "" && err != nil {
		return errorf(syscall.EINVAL, "%q is not an IP address (names are resolved by the worker)", m.Address)
	}
	return nil
}

func (w *Worker) owner() string { return w.Pool + "/" + strconv.Itoa(w.Slot) }

// at finds the handle of a place. An empty host and the wildcards mean the same
// as a configured wildcard listener of that port.
func (c *Core) at(key proto.Key) *Handle {
	if ids := c.places[key.Place()]; len(ids) > 0 {
		return c.handles[ids[0]]
	}
	if key.Port == 0 || proto.IsUnix(key.Network) || !proto.IsWildcard(key.Address) {
		return nil
	}
	for _, address := range []string{"", "::", "0.0.0.0"} {
		for _, network := range []string{key.Network[:3], key.Network[:3] + "6"} {
			for _, id := range c.places[proto.Key{Network: network, Address: address, Port: key.Port}] {
				if h := c.handles[id]; h.Configured {
					return h
				}
			}
		}
	}
	return nil
}

// freeIndex is the lowest index of a port-0 key that the worker does not use, so
// that its i-th open one is every other worker's i-th.
func (c *Core) freeIndex(w *Worker, key proto.Key) int {
	for {
		used := func(id proto.HandleID) bool { return c.handles[id].Key.Place() == key.Place() }
		if !slices.ContainsFunc(w.Holds, used) && !slices.ContainsFunc(w.Waits, used) {
			return key.Index
		}
		key.Index++
	}
}

// mayHold says whether the worker can be granted an existing handle.
func (c *Core) mayHold(w *Worker, h *Handle, exclusive bool) *proto.Error {
	switch {
	case slices.Contains(w.Holds, h.ID) || slices.Contains(w.Waits, h.ID):
		return errorf(syscall.EADDRINUSE, "this worker listens on %s already", h.Key)
	case h.Owner != "" && h.Owner != w.owner():
		return errorf(syscall.EADDRINUSE, "%s is exclusive to %s", h.Key.Place(), h.Owner)
	case exclusive && h.Owner == "":
		return errorf(syscall.EADDRINUSE, "%s is shared already (asked for by %s), so it cannot be exclusive", h.Key.Place(), h.Asker)
	}
	return nil
}

// allowed applies bind_allow; by default any port from 1024, and any path below
// the pool's working directory.
func (c *Core) allowed(g *Generation, key proto.Key) *proto.Error {
	spec := &g.Spec
	if spec.AllowSet {
		for _, rule := range spec.Allow {
			if rule.Allows(key.Network, key.Address, key.Port) {
				return nil
			}
		}
		return errorf(syscall.EACCES, "pool %s may not bind %s (bind_allow in its configuration)", spec.Name, key)
	}
	switch {
	case proto.IsUnix(key.Network) && strings.HasPrefix(key.Address, "@"):
		return errorf(syscall.EACCES, "pool %s may not bind %s (an abstract name must be listed in bind_allow)", spec.Name, key)
	case proto.IsUnix(key.Network):
		if dir := path.Clean(spec.Confine.Directory); key.Address != dir && strings.HasPrefix(key.Address, strings.TrimSuffix(dir, "/")+"/") {
			return nil
		}
		return errorf(syscall.EACCES, "pool %s may not bind %s (by default only below its working directory %s; see bind_allow)", spec.Name, key, spec.Confine.Directory)
	case key.Port != 0 && key.Port < 1024:
		return errorf(syscall.EACCES, "pool %s may not bind %s (by default only ports from 1024; see bind_allow, or configure a listener)", spec.Name, key)
	}
	return nil
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
	h := c.newHandle(key, spec)
	h.Asker, h.Owner, h.Policy = w.owner(), key.Owner, "shared"
	return h
}

func (c *Core) newHandle(key proto.Key, spec proto.SocketSpec) *Handle {
	if spec.Backlog <= 0 {
		spec.Backlog = proto.DefaultBacklog
	}
	h := &Handle{ID: c.m.NextHandle, Key: key, Spec: spec, State: HandleBinding}
	c.m.NextHandle++
	c.handles[h.ID] = h
	c.index(h)
	c.touch(handleRef(h), Ref{Kind: RefMaster})
	c.do(Bind{Handle: h.ID, Spec: spec})
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
	if h.Holders == 0 && !h.Configured {
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

func (c *Core) grant(w *Worker, h *Handle, req uint64) {
	w.Holds = append(w.Holds, h.ID)
	h.Holders++
	h.Linger = 0
	c.touch(workerRef(w), handleRef(h))
	ch := w.of(WhatHandleGranted)
	ch.Handle, ch.Address, ch.Name = h.ID, h.Bound.Address, h.Key.Name
	c.changed(ch)
	c.do(Send{Worker: w.ID, Handle: h.ID, Envelope: proto.Envelope{Re: req, Body: proto.Grant{
		Handle: h.ID, Network: h.Key.Network, Address: h.Bound.Address, Backlog: h.Bound.Backlog, Name: h.Key.Name,
	}}})
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
	w.Holds = slices.DeleteFunc(w.Holds, func(id proto.HandleID) bool { return id == h.ID })
	h.Holders--
	c.touch(workerRef(w), handleRef(h))
	c.unheld(h, w)
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
	if h.Holders > 0 || h.Configured || len(h.Waiters) > 0 || h.State != HandleOpen || c.pinned(h) {
		return
	}
	if last != nil {
		p := c.pools[last.Pool]
		s := p.slot(last.Slot)
		if d := p.generation(last.Gen).Spec.Timeouts.Linger; s != nil && c.wants(p, s) && !s.Serving && d > 0 {
			h.Linger = c.now.Add(d)
			c.arm(h.Linger, handleRef(h))
			ch := c.about(h, WhatHandleLinger)
			ch.Pool, ch.Slot, ch.Worker, ch.Delay = last.Pool, last.Slot, last.ID, d
			c.changed(ch)
			return
		}
	}
	if last == nil {
		c.release(h, "nobody wants it")
		return
	}
	c.release(h, "its last holder closed it")
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
	c.changed(ch)
	c.do(Send{Worker: w.ID, Envelope: proto.Envelope{Re: req, Body: *e}})
}

var errnoNames = map[syscall.Errno]string{
	syscall.EADDRINUSE: "EADDRINUSE", syscall.EACCES: "EACCES", syscall.EINVAL: "EINVAL", syscall.ENOENT: "ENOENT",
}

func errorf(errno syscall.Errno, format string, args ...any) *proto.Error {
	return &proto.Error{Code: errnoNames[errno], Errno: int(errno), Message: fmt.Sprintf(format, args...)}
}
