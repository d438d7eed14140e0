package core

import (
	"fmt"
	"slices"
	"time"

	"github.com/f72e338e/supervisord/internal/proto"
)

// leftLately is how long who gave a handle back is suspected with its holders, and
// maxSuspects how many workers a record names.
const (
	leftLately  = time.Second
	maxSuspects = 16
)

// worthTelling lets the first refusedAll of a row pass, then fewer and fewer.
func worthTelling(n int) bool { return n <= refusedAll || n&(n-1) == 0 }

// Left is a worker that held a handle until a moment ago. A shut-down ends programs
// whose accept(2) then fails, and their ends are often heard of first.
type Left struct {
	Worker proto.WorkerID `json:"worker"`
	Owner  string         `json:"owner"`
	At     Time           `json:"at"`
}

// left notes that the worker holds the handle no more.
func (h *Handle) left(w *Worker, now Time) {
	h.Left = slices.DeleteFunc(h.Left, func(l Left) bool { return now.Sub(l.At) > leftLately })
	if len(h.Left) < maxSuspects {
		h.Left = append(h.Left, Left{w.ID, w.owner(), now})
	}
}

// tellHarm records what was done, the n-th time, and who may have done it.
func (c *Core) tellHarm(h *Handle, ev Sabotaged, n int) {
	if !worthTelling(n) {
		return
	}
	list, why := c.suspects(h, ev)
	ch := c.about(h, WhatHandleHarmed)
	ch.Attempt, ch.Cause = n, ev.What+byWhom(list, why)
	if len(list) == 1 && c.workers[list[0]] != nil {
		w := c.workers[list[0]]
		if w.Refused++; !worthTelling(w.Refused) { // at each of its many sockets
			return
		}
		c.touch(workerRef(w))
		ch.Pool, ch.Slot, ch.Worker, ch.PID, ch.Gen = w.Pool, w.Slot, w.ID, w.PID, w.Gen
	}
	c.changed(ch)
}

// suspects returns who may have done it, and why they. Any holder can at any time,
// and who held it a moment ago. But programs do such things to their sockets when
// they start: of what was seen late, those are suspected that have started since it
// was last seen in order.
func (c *Core) suspects(h *Handle, ev Sabotaged) (list []proto.WorkerID, why string) {
	var all, holds, started []proto.WorkerID
	consider := func(id proto.WorkerID, owner string, since bool) {
		all = append(all, id)
		if h.Policy == proto.PolicyReusePort && ev.Member < len(h.Members) && h.Members[ev.Member].Owner != owner {
			return
		}
		holds = append(holds, id)
		if since {
			started = append(started, id)
		}
	}
	for _, w := range c.holdersOf(h) {
		consider(w.ID, w.owner(), ev.Since != 0 && (w.ReadyAt == 0 || w.ReadyAt >= ev.Since))
	}
	for _, l := range h.Left {
		if c.now.Sub(l.At) <= leftLately {
			consider(l.Worker, l.Owner, false)
		}
	}
	list, why = all, "holds it"
	switch {
	case len(started) > 0:
		list, why = started, "has just started"
	case len(holds) > 0:
		list = holds
	}
	slices.Sort(list)
	return slices.Compact(list), why
}

// byWhom says that one of the workers did it.
func byWhom(list []proto.WorkerID, why string) string {
	switch len(list) {
	case 0:
		return " by a process that has the socket from a worker"
	case 1:
		return fmt.Sprintf(" by worker %d, which alone %s", list[0], why)
	}
	text := " by one of the workers"
	for _, id := range list[:min(len(list), maxSuspects)] {
		text += fmt.Sprintf(" %d", id)
	}
	if more := len(list) - maxSuspects; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}
