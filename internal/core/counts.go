package core

import (
	"slices"
	"time"

	"github.com/f72e338e/supervisord/internal/proto"
)

// defaultGather is how long counts are waited for when nobody says otherwise;
// maxGather the longest that can be asked for.
const (
	defaultGather = time.Second
	maxGather     = time.Minute
)

// countsAsked asks all workers at once; answers come as they come, and at the
// deadline the reply says who is missing.
func (c *Core) countsAsked(ev CountsAsked) {
	if p := c.pools[ev.Pool]; ev.Pool != "" && p == nil {
		c.do(Reply{Op: ev.Op, Result: Result{Error: "there is no pool " + ev.Pool}})
		return
	}
	c.gather(&Gather{Op: ev.Op, Pool: ev.Pool}, ev.TimeoutMS)
}

// connections is the same, asked by a worker about its own pool.
func (c *Core) connections(w *Worker, req uint64, m proto.Connections) {
	c.gather(&Gather{Worker: w.ID, Req: req, Pool: w.Pool}, m.TimeoutMS)
}

func (c *Core) gather(g *Gather, timeoutMS int64) {
	d := defaultGather
	if timeoutMS > 0 {
		d = min(time.Duration(timeoutMS)*time.Millisecond, maxGather)
	}
	g.ID, g.Deadline = c.m.NextGather, c.now.Add(d)
	c.m.NextGather++
	c.gathers[g.ID] = g
	c.touch(Ref{Kind: RefGather, ID: g.ID}, Ref{Kind: RefMaster})
	g.Before = c.m.NextWorker
	for _, w := range c.sortedWorkers() {
		if !g.concerns(w) || !w.canTell() {
			continue
		}
		g.Open++
		w.Gathers = append(w.Gathers, g.ID)
		c.touch(workerRef(w))
		c.askCount(w)
	}
	if g.Open == 0 {
		c.finishGather(g)
		return
	}
	c.arm(g.Deadline, Ref{Kind: RefGather, ID: g.ID})
}

// concerns reports whether the worker is one that was asked: it was there.
func (g *Gather) concerns(w *Worker) bool {
	return w.ID < g.Before && (g.Pool == "" || w.Pool == g.Pool)
}

// canTell reports whether the worker's connections can be known: it tells them itself,
// or the kernel does for one that was given its sockets.
func (w *Worker) canTell() bool {
	return w.State != Unlinked && (w.Greeted || !w.Linked && w.PID != 0 && len(w.Holds) > 0)
}

// askCount sends a count request unless one is still unanswered: a worker that
// does not read is not sent more and more of them, and when it answers, it
// answers for all who wait.
func (c *Core) askCount(w *Worker) {
	if w.Asked != 0 {
		return
	}
	w.Asked = c.m.NextID
	c.m.NextID++
	c.touch(Ref{Kind: RefMaster})
	c.touch(workerRef(w))
	c.do(Send{Worker: w.ID, Envelope: proto.Envelope{ID: w.Asked, Body: proto.Count{}}})
}

// maxCount is more than one worker can have open; the sum of all stays in range.
const maxCount = 1 << 40

// counted takes a worker's counts, told by itself or as an answer. Absurd values
// are the worker's own problem: they are clamped and concern nobody else.
func (c *Core) counted(w *Worker, re uint64, m proto.Counts) {
	n := min(max(0, m.Connections), maxCount)
	w.Connected, w.Accepted, w.Tells = &n, m.Accepted, true
	if re == 0 || re != w.Asked {
		return
	}
	c.answered(w)
}

// answered: the worker has told what all who wait for its counts want to know, or
// is gone; then it holds no connection and is not missing.
func (c *Core) answered(w *Worker) {
	w.Asked = 0
	gathers := w.Gathers
	w.Gathers = nil
	for _, id := range gathers {
		g := c.gathers[id]
		c.touch(Ref{Kind: RefGather, ID: id})
		if g.Open--; g.Open == 0 {
			c.finishGather(g)
		}
	}
}

// finishGather answers: with the last counts of those that answered, and with the
// names of those that did not.
func (c *Core) finishGather(g *Gather) {
	res := CountsResult{Workers: []WorkerCount{}, Missing: []WorkerCount{}}
	for _, w := range c.sortedWorkers() {
		switch {
		case !g.concerns(w) || w.State == Gone:
		case slices.Contains(w.Gathers, g.ID):
			res.Missing = append(res.Missing, w.count(nil, "did not answer in time"))
		case !w.canTell() || w.Connected == nil:
			res.Missing = append(res.Missing, w.count(nil, "cannot be known"))
		default:
			n := *w.Connected
			res.Total += n
			res.Workers = append(res.Workers, w.count(&n, ""))
		}
	}
	c.dropGather(g)
	if g.Worker != 0 {
		c.sendConns(g, res)
		return
	}
	c.do(Reply{Op: g.Op, Result: Result{Counts: &res}})
}

func (c *Core) dropGather(g *Gather) {
	delete(c.gathers, g.ID)
	c.touch(Ref{Kind: RefGather, ID: g.ID})
	for _, w := range c.workers {
		if i := slices.Index(w.Gathers, g.ID); i >= 0 {
			w.Gathers = slices.Delete(w.Gathers, i, i+1)
			c.touch(workerRef(w))
		}
	}
}

func (c *Core) sendConns(g *Gather, res CountsResult) {
	if c.workers[g.Worker] == nil {
		return
	}
	m := proto.Conns{Total: res.Total, Workers: []proto.WorkerConns{}}
	for _, a := range res.Workers {
		m.Workers = append(m.Workers, proto.WorkerConns{Worker: a.Worker, Slot: a.Slot, Connections: *a.Connections})
	}
	for _, a := range res.Missing {
		m.Missing = append(m.Missing, a.Worker)
	}
	c.do(Send{Worker: g.Worker, Envelope: proto.Envelope{Re: g.Req, Body: m}})
}

func (w *Worker) count(n *int64, reason string) WorkerCount {
	return WorkerCount{Pool: w.Pool, Slot: w.Slot, Worker: w.ID, PID: w.PID, Connections: n, Reason: reason}
}
