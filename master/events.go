package master

import (
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/f72e338e/supervisord/internal/api"
	"github.com/f72e338e/supervisord/internal/core"
	"github.com/f72e338e/supervisord/systemd"
)

// changed turns one record of the core into a log line and an event, and tells
// systemd what concerns it.
func (m *Master) changed(c core.Changed) {
	e := eventOf(c)
	if c.What == core.WhatWorkerFailed || c.What == core.WhatRolloutFailed {
		e.Output = m.tails.of(c.Worker)
	}
	m.ring.add(&e)
	m.logEvent(c, e)
	switch c.What {
	case core.WhatWorkerExited, core.WhatWorkerFailed:
		m.tails.end(c.Worker)
	case core.WhatConfigApplied:
		m.inForce(c.Op)
	case core.WhatConfigRefused:
		delete(m.pending, c.Op)
	case core.WhatMasterReady:
		m.announce()
	case core.WhatMasterStopping:
		m.tell(systemd.Stopping(), systemd.Status("stopping"))
	case core.WhatRolloutReplaced, core.WhatRolloutStarted, core.WhatRolloutWatching:
		m.tell(systemd.Status("roll-out of " + c.Pool + ": " + strings.TrimSpace(c.What[len("rollout "):]+" "+c.Result)))
	case core.WhatRolloutDone, core.WhatRolloutReverted:
		m.tell(systemd.Status("serving; roll-out of " + c.Pool + " " + c.What[len("rollout "):]))
	}
}

// announce says that the service is up.
func (m *Master) announce() { m.tell(systemd.Ready(), systemd.Status("serving")) }

func (m *Master) tell(fields ...string) {
	if err := m.notify.Send(fields...); err != nil {
		m.log.Warn("systemd not told", "err", err)
	}
}

// logEvent writes one line: the message without values, the values under the
// keys of the project's list.
func (m *Master) logEvent(c core.Changed, e api.Event) {
	var kv []any
	add := func(key string, v any, on bool) {
		if on {
			kv = append(kv, key, v)
		}
	}
	add("pool", c.Pool, c.Pool != "")
	add("slot", c.Slot, c.Slot >= 0)
	add("worker", c.Worker, c.Worker != 0)
	add("pid", c.PID, c.PID != 0)
	add("gen", c.Gen, c.Gen != 0)
	add("handle", c.Handle, c.Handle != 0)
	add("listener", c.Name, c.Name != "")
	add("addr", c.Address, c.Address != "")
	add("backlog", c.Backlog, c.Backlog != 0)
	add("from", c.From, c.From != "")
	add("to", c.To, c.To != "")
	add("signal", c.Signal, c.Signal != "")
	if c.Code != nil {
		kv = append(kv, "code", *c.Code)
	}
	add("attempt", c.Attempt, c.Attempt != 0)
	add("delay", c.Delay.Round(time.Millisecond), c.Delay != 0)
	add("took", rounded(c.Took), c.Took != 0)
	add("cause", c.Cause, c.Cause != "")
	if c.Result != "" && !strings.HasPrefix(c.Result, "exited with code") && !strings.HasPrefix(c.Result, "killed by") {
		kv = append(kv, "result", c.Result)
	}
	switch c.Level {
	case core.Debug:
		m.log.Debug(c.What, kv...)
	case core.Info:
		m.log.Info(c.What, kv...)
	case core.Warn:
		m.log.Warn(c.What, kv...)
	default:
		m.log.Error(c.What, kv...)
	}
}

// rounded leaves of a time what people want to read.
func rounded(d time.Duration) time.Duration {
	if d < time.Millisecond {
		return d.Round(time.Microsecond)
	}
	return d.Round(time.Millisecond)
}

func eventOf(c core.Changed) api.Event {
	e := api.Event{
		Time: time.Now(), Event: strings.ReplaceAll(c.What, " ", "."), Level: [...]string{"debug", "info", "warn", "error"}[c.Level],
		Pool: c.Pool, Worker: uint64(c.Worker), PID: c.PID, Gen: c.Gen, Handle: uint64(c.Handle), Address: c.Address, Name: c.Name,
		Backlog: c.Backlog, From: c.From, To: c.To, Signal: c.Signal, Code: c.Code, Cause: c.Cause, Attempt: c.Attempt,
		DelayMS: c.Delay.Milliseconds(), TookMS: c.Took.Milliseconds(), Result: c.Result,
	}
	if c.Slot >= 0 {
		e.Slot = &c.Slot
	}
	return e
}

// eventRing keeps the last events and wakes those who follow. Adding never waits
// for a reader: one that is slow finds a gap in the ids.
type eventRing struct {
	mu     sync.Mutex
	events []api.Event
	debug  int // how many of them are of this level
	size   int
	next   uint64
	wake   chan struct{} // closed at the next event
}

func newEventRing(size int) *eventRing {
	return &eventRing{size: size, next: 1, wake: make(chan struct{})}
}

// add numbers the event and keeps it. Those of level debug, among them all that workers
// say, have half of the room at most: a worker that talks much does not hide what was
// done about it.
func (r *eventRing) add(e *api.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e.ID = r.next
	r.next++
	if isDebug(*e) {
		r.debug++
	}
	if len(r.events) == r.size {
		oldest := 0
		if r.debug > r.size/2 {
			oldest = max(0, slices.IndexFunc(r.events, isDebug))
		}
		if isDebug(r.events[oldest]) {
			r.debug--
		}
		r.events = slices.Delete(r.events, oldest, oldest+1)
	}
	r.events = append(r.events, *e)
	close(r.wake)
	r.wake = make(chan struct{})
}

func isDebug(e api.Event) bool { return e.Level == "debug" }

// since returns the events after the one with the id, and a channel that is closed
// when there is another.
func (r *eventRing) since(id uint64) ([]api.Event, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := len(r.events)
	for i > 0 && r.events[i-1].ID > id {
		i--
	}
	return append([]api.Event(nil), r.events[i:]...), r.wake
}

// last returns the id of the newest event.
func (r *eventRing) last() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.next - 1
}
