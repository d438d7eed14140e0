package core

import (
	"fmt"
	"slices"
	"time"

	"github.com/f72e338e/supervisord/internal/proto"
)

type workerID = proto.WorkerID

// killEvery is how often SIGKILL is repeated for a process that does not end.
const killEvery = 10 * time.Second

// linkGrace is how long a worker that closed its link may take to exit by itself
// before it gets the stop signal: an exit closes the link a moment earlier.
const linkGrace = 500 * time.Millisecond

// spawn starts a worker for the slot, from the slot's generation.
func (c *Core) spawn(p *Pool, s *Slot) *Worker {
	g := p.generation(s.Gen)
	w := &Worker{
		ID: c.m.NextWorker, Pool: p.Name, Slot: s.Index, Gen: g.Number, State: Forking,
		Attached: true, Linked: g.Spec.Protocol == ProtocolNative || g.Spec.Protocol == ProtocolNode, Begun: c.now,
	}
	c.m.NextWorker++
	c.workers[w.ID] = w
	c.live++
	p.Live++
	g.Live++
	s.RetryAt, s.Last = 0, w.ID
	c.touch(workerRef(w), slotRef(p, s), poolRef(p), Ref{Kind: RefMaster})
	c.changed(w.of(WhatWorkerStarting))
	c.endow(w, g)
	c.do(Spawn{Worker: w.ID, Pool: p.Name, Slot: s.Index, Gen: g.Number, Launch: g.Spec.Launch, Linked: w.Linked, Handles: slices.Clone(w.Holds)})
	return w
}

func (c *Core) spec(w *Worker) *PoolSpec { return &c.pools[w.Pool].generation(w.Gen).Spec }

func (c *Core) setDeadline(w *Worker, d time.Duration) {
	w.Deadline = c.now.Add(d)
	c.arm(w.Deadline, workerRef(w))
}

func (c *Core) workerSpawned(w *Worker, _ input) {
	c.changed(w.of(WhatWorkerStarted))
	if w.EndWish {
		c.life(w, evEnd, input{})
		return
	}
	spec := c.spec(w)
	if spec.Ready == ReadyDelay {
		c.setDeadline(w, spec.ReadyDelay)
		return
	}
	c.setDeadline(w, spec.Timeouts.Start)
}

func (c *Core) workerNotSpawned(w *Worker, in input) {
	w.Failure = in.cause
	c.ended(w, Exit{}, "could not be started: "+in.cause)
}

func (c *Core) stageFailed(w *Worker, in input) { w.Failure = in.cause }

func (c *Core) wishEnd(w *Worker, _ input) { w.EndWish = true }

func (c *Core) workerReady(w *Worker, _ input) {
	w.ReadyAt = c.now
	c.alive(w)
	c.do(Admit{w.ID, true})
	ch := w.of(WhatWorkerReady)
	ch.Took = c.now.Sub(w.Begun)
	c.changed(ch)
	if w.Attached {
		c.serving(w)
	}
}

// startTimeout also is the end of a stated delay, which makes the worker ready:
// the one case in which a time stands for readiness, because it was asked for.
func (c *Core) startTimeout(w *Worker, _ input) {
	spec := c.spec(w)
	if spec.Ready == ReadyDelay && w.Failure == "" {
		w.State = Ready
		c.workerReady(w, input{})
		return
	}
	if w.Failure == "" {
		w.Failure = fmt.Sprintf("not ready within %v", spec.Timeouts.Start)
	}
	c.kill(w, w.Failure)
	c.lose(w, w.Failure, false)
}

func (c *Core) linkBroken(w *Worker, in input) {
	w.Failure = in.cause
	c.kill(w, w.Failure)
	c.lose(w, w.Failure, false)
}

// bar keeps connections away from a worker that was ready and is no more.
func (c *Core) bar(w *Worker) {
	if w.ReadyAt != 0 && !w.Barred {
		w.Barred = true
		c.do(Admit{w.ID, false})
	}
}

// linkClosed waits for the exit that usually follows, so that a crash is counted
// as one, whichever of the two the shell sees first.
func (c *Core) linkClosed(w *Worker, _ input) {
	c.bar(w)
	c.setDeadline(w, linkGrace)
	c.notServing(w)
}

func (c *Core) stillThere(w *Worker, _ input) {
	w.Failure = "closed its link and did not exit"
	c.kill(w, w.Failure)
	c.lose(w, w.Failure, false)
}

func (c *Core) gracefulOver(w *Worker, _ input) {
	c.kill(w, fmt.Sprintf("did not drain within %v", c.gracefulOf(w)))
}

func (c *Core) beginKilling(w *Worker, _ input) { c.kill(w, w.Cause) }

// kill sends the stop signal; SIGKILL follows after kill_timeout. The state is
// Killing already.
func (c *Core) kill(w *Worker, cause string) {
	c.bar(w)
	w.Cause = cause
	ch := w.of(WhatWorkerKilling)
	ch.Cause, ch.Delay = cause, c.spec(w).Timeouts.Kill
	c.changed(ch)
	c.do(Terminate{w.ID, c.spec(w).StopSignal})
	c.setDeadline(w, c.spec(w).Timeouts.Kill)
}

func (c *Core) killNow(w *Worker, _ input) {
	w.Killed++
	if w.Killed == 2 {
		ch := w.of(WhatWorkerUnkilled)
		ch.Cause = w.Cause
		c.changed(ch)
	}
	c.do(Kill{w.ID})
	c.setDeadline(w, killEvery)
}

// drain asks the worker to go, for the reason given, and detaches it. In a fast
// stop there is no time for asking, and it ends at once.
func (c *Core) drain(w *Worker, cause string) {
	if w.Cause == "" {
		w.Cause = cause
	}
	c.detach(w)
	if c.m.Fast {
		c.life(w, evEnd, input{})
		return
	}
	c.life(w, evDrain, input{})
}

func (c *Core) beginLeaving(w *Worker, _ input) {
	ch := w.of(WhatWorkerDraining)
	ch.Cause = w.Cause
	c.changed(ch)
	if d := c.spec(w).Timeouts.Drain; d > 0 {
		c.setDeadline(w, d)
		return
	}
	w.State = Draining
	c.tellDrain(w, input{})
}

func (c *Core) tellDrain(w *Worker, _ input) {
	c.drainDeadline(w, input{})
	if w.Greeted {
		d := c.gracefulOf(w)
		c.do(Send{Worker: w.ID, Envelope: proto.Envelope{Body: proto.Drain{DeadlineMS: d.Milliseconds(), Reason: w.Cause}}})
		return
	}
	c.do(Terminate{w.ID, c.spec(w).StopSignal})
}

func (c *Core) drainDeadline(w *Worker, _ input) {
	c.bar(w)
	c.setDeadline(w, c.gracefulOf(w))
	if t := c.spec(w).Rollout.GenerationTimeout; t > 0 {
		w.DrainBy = c.now.Add(t)
	}
}

// gracefulOf is how long the worker may drain: no generation outlives
// generation_timeout.
func (c *Core) gracefulOf(w *Worker) time.Duration {
	spec := c.spec(w)
	if t := spec.Rollout.GenerationTimeout; t > 0 {
		return min(t, spec.Timeouts.Graceful)
	}
	return spec.Timeouts.Graceful
}

// leaveItself: the worker goes by its own will.
func (c *Core) leaveItself(w *Worker, in input) {
	w.Cause = "by its own will"
	if in.cause != "" {
		w.Cause += ": " + in.cause
	}
	ch := w.of(WhatWorkerDraining)
	ch.Cause = w.Cause
	c.changed(ch)
	c.drainDeadline(w, input{})
	c.lose(w, "drained "+w.Cause, true)
}

// workerExited: the process is gone, in whatever state it was.
func (c *Core) workerExited(w *Worker, in input) {
	text := exitText(in.exit)
	if w.Failure != "" {
		text = w.Failure
		if in.exit.Known && in.exit.Code != stageExit {
			text += " (" + exitText(in.exit) + ")"
		}
	}
	c.ended(w, in.exit, text)
}

// stageExit is the exit code of a stage that could not execute the command.
const stageExit = 127

// ended removes the worker and tells everything that knew it.
func (c *Core) ended(w *Worker, exit Exit, text string) {
	p := c.pools[w.Pool]
	clean := exit.Known && exit.Code == 0 && exit.Signal == ""
	ch := w.of(WhatWorkerExited)
	if w.Attached && !clean {
		ch.What = WhatWorkerFailed
	}
	ch.Cause, ch.Signal, ch.Result = w.Cause, exit.Signal, text
	if exit.Known && exit.Signal == "" {
		ch.Code = &exit.Code
	}
	ch.Took = c.now.Sub(w.Begun)
	c.changed(ch)

	if s := p.slot(w.Slot); s != nil {
		s.LastExit = text
		c.touch(slotRef(p, s))
	}
	w.State = Gone
	c.lose(w, text, clean)
	delete(c.workers, w.ID)
	c.live--
	p.Live--
	p.generation(w.Gen).Live--
	c.touch(poolRef(p))
	for _, id := range slices.Clone(w.Waits) {
		c.stopWaiting(w, c.handles[id])
	}
	for _, id := range slices.Clone(w.Holds) {
		c.dropHold(w, c.handles[id])
	}
	c.answered(w)
	if s := p.slot(w.Slot); s != nil && s.After == w.ID {
		s.After = 0
		c.fill(p, s)
	}
	c.retire(p)
	c.settle(p)
	c.maybeQuit()
}

func exitText(e Exit) string {
	switch {
	case !e.Known:
		return "ended, nobody knows how"
	case e.Core:
		return "killed by " + e.Signal + " (core dumped)"
	case e.Signal != "":
		return "killed by " + e.Signal
	}
	return fmt.Sprintf("exited with code %d", e.Code)
}
