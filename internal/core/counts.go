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
	for _, w := range c.sortedWorkers() {
		if g.Pool != "" && w.Pool != g.Pool {
			continue
		}
		if !w.Greeted || w.State == Unlinked {
			g.Answers = append(g.Answers, w.count(nil, "has no link to be asked over"))
			continue
		}
		g.Waiting = append(g.Waiting, w.ID)
		c.askCount(w)
	}
	if len(g.Waiting) == 0 {
		c.finishGather(g)
		return
	}
	c.arm(g.Deadline, Ref{Kind: RefGather, ID: g.ID})
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
	c.touch(workerRef(w))
	c.do(Send{Worker: w.ID, Envelope: proto.Envelope{ID: w.Asked, Body: proto.Count{}}})
}

// counted takes a worker's counts, told by itself or as an answer. Absurd values
// are the worker's own problem: they are clamped and concern nobody else.
func (c *Core) counted(w *Worker, re uint64, m proto.Counts) {
	n := max(0, m.Connections)
	w.Connected, w.Accepted = &n, m.Accepted
	if re == 0 || re != w.Asked {
		return
	}
	w.Asked = 0
	for _, g := range c.gathersOf(w) {
		g.Answers = append(g.Answers, w.count(&n, ""))
		c.leaveGather(g, w)
	}
}

func (c *Core) gathersOf(w *Worker) []*Gather {
	var out []*Gather
	for _, g := range c.gathers {
		if slices.Contains(g.Waiting, w.ID) {
			out = append(out, g)
		}
	}
	slices.SortFunc(out, func(a, b *Gather) int { return int(a.ID) - int(b.ID) })
	return out
}

// leaveGathers: a worker that is gone holds no connection and is not missing.
func (c *Core) leaveGathers(w *Worker) {
	for _, g := range c.gathersOf(w) {
		c.leaveGather(g, w)
	}
}

func (c *Core) leaveGather(g *Gather, w *Worker) {
	g.Waiting = slices.DeleteFunc(g.Waiting, func(id proto.WorkerID) bool { return id == w.ID })
	c.touch(Ref{Kind: RefGather, ID: g.ID})
	if len(g.Waiting) == 0 {
		c.finishGather(g)
	}
}

func (c *Core) finishGather(g *Gather) {
	delete(c.gathers, g.ID)
	c.touch(Ref{Kind: RefGather, ID: g.ID})
	res := CountsResult{Workers: []WorkerCount{}, Missing: []WorkerCount{}}
	for _, a := range g.Answers {
		if a.Connections == nil {
			res.Missing = append(res.Missing, a)
			continue
		}
		res.Total += *a.Connections
		res.Workers = append(res.Workers, a)
	}
	for _, id := range g.Waiting {
		if w := c.workers[id]; w != nil {
			res.Missing = append(res.Missing, w.count(nil, "did not answer in time"))
		}
	}
	byWorker := func(a, b WorkerCount) int { return int(a.Worker) - int(b.Worker) }
	slices.SortFunc(res.Workers, byWorker)
	slices.SortFunc(res.Missing, byWorker)
	if g.Worker != 0 {
		c.sendConns(g, res)
		return
	}
	c.do(Reply{Op: g.Op, Result: Result{Counts: &res}})
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
