package core

import (
	"slices"
	"strings"

	"github.com/f72e338e/supervisord/internal/proto"
)

// received handles one message of a worker. Messages that only the master sends,
// and requests that make no sense now, get an error answer and change nothing.
func (c *Core) received(w *Worker, e proto.Envelope) {
	hello, ok := e.Body.(proto.Hello)
	if w.Rejoining && (!ok || hello.Epoch != c.m.Epoch) {
		return // meant for the master before; what matters is repeated
	}
	c.touch(workerRef(w))
	if ok {
		c.hello(w, e.ID, hello)
		return
	}
	if !w.Greeted {
		c.answerError(w, e.ID, proto.CodeState, "say hello first")
		return
	}
	c.alive(w)
	switch m := e.Body.(type) {
	case proto.Listen:
		if w.State != Starting && w.State != Ready {
			c.answerError(w, e.ID, proto.CodeState, "a worker that drains cannot listen")
			return
		}
		c.listen(w, e.ID, m)
	case proto.Close:
		if h := c.handles[m.Handle]; h != nil && slices.Contains(w.Holds, h.ID) {
			c.dropHold(w, h)
		}
	case proto.Ready:
		c.life(w, evReady, input{})
	case proto.Draining:
		c.life(w, evDraining, input{cause: clip(m.Reason, 200)})
	case proto.Status:
		c.status(w, m.Text)
	case proto.Heartbeat, proto.Pong, proto.Error:
		// A sign of life, and no more.
	case proto.Counts:
		c.counted(w, e.Re, m)
	case proto.Connections:
		c.connections(w, e.ID, m)
	default:
		c.answerError(w, e.ID, proto.CodeUnknownMessage, "the master does not take "+e.Body.Type())
	}
}

func (c *Core) status(w *Worker, text string) {
	w.Text = clip(text, 200)
	ch := w.of(WhatWorkerStatus)
	ch.Cause = w.Text
	c.changed(ch)
}

// hello greets a new worker; said again, after a new master's welcome, it tells
// what the worker holds, which then counts, and is not answered.
func (c *Core) hello(w *Worker, id uint64, m proto.Hello) {
	if !slices.ContainsFunc(m.Versions, func(v int) bool { return v >= proto.MinVersion && v <= proto.Version }) {
		c.answerError(w, id, proto.CodeVersion, "this master speaks protocol version 1")
		return
	}
	if w.Rejoining {
		c.rejoin(w, m)
		return
	}
	if m.Counts != nil {
		c.counted(w, 0, *m.Counts)
	}
	if w.Greeted && m.Epoch == c.m.Epoch {
		return
	}
	w.Greeted = true
	w.Features = knownFeatures(m.Features)
	c.do(Send{Worker: w.ID, Envelope: proto.Envelope{Re: id, Body: c.welcome(w)}})
}

// knownFeatures keeps of what a worker says what means something.
func knownFeatures(said []string) (known []string) {
	for _, f := range []string{proto.FeatureHandover, proto.FeatureMembers, proto.FeatureLook, proto.FeaturePass} {
		if slices.Contains(said, f) {
			known = append(known, f)
		}
	}
	return known
}

func (w *Worker) can(feature string) bool { return slices.Contains(w.Features, feature) }

func (c *Core) welcome(w *Worker) proto.Welcome {
	m := proto.Welcome{Version: proto.Version, Epoch: c.m.Epoch, Pool: w.Pool, Slot: w.Slot, Worker: w.ID, Generation: w.Gen}
	g := c.pools[w.Pool].generation(w.Gen)
	m.MaxConnections = g.Spec.MaxConnections
	for _, id := range g.Handles {
		if h := c.handles[id]; h != nil {
			m.Listeners = append(m.Listeners, proto.Endpoint{Name: g.nameOf(id), Network: h.Key.Network, Address: h.Bound.Address})
		}
	}
	return m
}

// listeningMakesReady: with ready = "listening" a worker is ready when it holds
// every listener of its pool, or any handle where the pool has none.
func (c *Core) listeningMakesReady(w *Worker) {
	g := c.pools[w.Pool].generation(w.Gen)
	if g.Spec.Ready != ReadyListening {
		return
	}
	for _, id := range g.Handles {
		if !slices.Contains(w.Holds, id) {
			return
		}
	}
	c.life(w, evReady, input{})
}

func (c *Core) answerError(w *Worker, re uint64, code, message string) {
	ch := w.of(WhatWorkerRefused)
	ch.Cause = message
	c.refused(w, ch)
	if re != 0 {
		c.do(Send{Worker: w.ID, Envelope: proto.Envelope{Re: re, Body: proto.Error{Code: code, Message: message}}})
	}
}

// refused tells of a refusal, of a worker that goes on for ever less and less
// often: it is to be seen, and not to fill the log.
func (c *Core) refused(w *Worker, ch Changed) {
	w.Refused++
	c.touch(workerRef(w))
	if w.Refused > refusedAll && w.Refused&(w.Refused-1) != 0 {
		return
	}
	ch.Attempt = w.Refused
	c.changed(ch)
}

// refusedAll is how many refusals of a worker are each told; then every second,
// fourth, eighth ... one.
const refusedAll = 8

// clip bounds a text that a worker chose.
func clip(s string, n int) string {
	if len(s) > n {
		return strings.Clone(s[:n]) // an event that is kept does not keep all of it
	}
	return s
}
