package master

import (
	"os"
	"slices"
	"time"

	"github.com/f72e338e/supervisord/internal/api"
	"github.com/f72e338e/supervisord/internal/core"
	"github.com/f72e338e/supervisord/internal/proc"
	"github.com/f72e338e/supervisord/internal/proto"
	"github.com/f72e338e/supervisord/internal/socket"
)

// status answers from the snapshot. Only the lengths of the accept queues are
// asked of the loop, which owns the sockets, and memory and CPU of the kernel.
func (m *Master) status() api.Status {
	s := m.snapshot.Load()
	st := api.Status{
		Master: api.Master{PID: os.Getpid(), Version: m.opts.Version, State: masterState(s.master),
			UptimeSeconds: time.Since(m.begun).Seconds(), Config: m.file, Recoveries: m.recoveries, Upgrades: m.upgrades, LostOutput: m.output.lost.Load()},
		Listeners: m.listenerStatus(s), Pools: []api.Pool{},
	}
	m.call(func() { st.Master.Degraded = m.degraded })
	s.pools.Scan(func(name string, p core.Pool) bool {
		st.Pools = append(st.Pools, s.poolStatus(p))
		return true
	})
	return st
}

func (m *Master) listenerStatus(s *snapshot) []api.Listener {
	holders := map[proto.HandleID][]uint64{}
	s.workers.Scan(func(id proto.WorkerID, w core.Worker) bool {
		for _, h := range w.Holds {
			holders[h] = append(holders[h], uint64(id))
		}
		return true
	})
	m.call(m.lookAtAll) // what is put back shows in the next status, and in the events
	queues, steering := m.queues()
	out := []api.Listener{}
	s.handles.Scan(func(id proto.HandleID, h core.Handle) bool {
		if h.State != core.HandleOpen {
			return true
		}
		l := api.Listener{Name: h.Key.Name, Network: h.Key.Network, Address: h.Bound.Address, Policy: h.Policy, Exclusive: h.Owner != "",
			Backlog: h.Bound.Backlog, Queued: queues[id], Holders: holders[id], AskedBy: h.Asker}
		if h.Policy == proto.PolicyReusePort {
			l.Steering = steering[id]
		}
		if l.Holders == nil {
			l.Holders = []uint64{}
		}
		for _, w := range h.Wishes {
			l.Refused = append(l.Refused, api.Wish{AskedBy: w.Asker, Backlog: w.Backlog})
		}
		out = append(out, l)
		return true
	})
	slices.SortStableFunc(out, func(a, b api.Listener) int { // configured ones first
		switch {
		case (a.Name == "") == (b.Name == ""):
			return 0
		case a.Name == "":
			return 1
		}
		return -1
	})
	return out
}

// queues asks the kernel how many connections wait on each socket, where unknown
// ones are missing, and tells how those of reuse_port are steered.
func (m *Master) queues() (map[proto.HandleID]*int, map[proto.HandleID]string) {
	out, how := map[proto.HandleID]*int{}, map[proto.HandleID]string{}
	m.call(func() {
		for id, l := range m.sockets {
			steering, more := l.group.state()
			how[id] = steering
			if n, _, err := socket.Queue(l.file.Fd()); l.file != nil && err == nil {
				n += more
				out[id] = &n
			}
		}
	})
	return out, how
}

func (s *snapshot) poolStatus(p core.Pool) api.Pool {
	out := api.Pool{Name: p.Name, Generation: p.Gen, Desired: p.Desired, Ready: p.ReadySlots, Workers: []api.Worker{}}
	if r := p.Rollout; r != nil {
		out.Rollout = &api.Rollout{Kind: r.Kind, From: r.From, To: r.To, Phase: r.Phase, Replaced: r.Replaced, Total: len(r.Order)}
	}
	at := now()
	attached := map[proto.WorkerID]core.Slot{}
	s.slots.Ascend(slotKey(p.Name, 0), func(key string, sl core.Slot) bool {
		if key > slotKey(p.Name, 99999999) {
			return false
		}
		if sl.Index >= p.Desired {
			return true
		}
		// A last worker that still drains speaks for itself, and a master that stops
		// starts no other.
		if _, lives := s.workers.Get(sl.Last); sl.Current == 0 && !lives && !s.master.Stopping {
			out.Workers = append(out.Workers, waiting(sl, at))
		}
		attached[sl.Current], attached[sl.Next] = sl, sl
		return true
	})
	s.workers.Scan(func(id proto.WorkerID, w core.Worker) bool {
		if w.Pool == p.Name {
			out.Workers = append(out.Workers, s.workerStatus(w, attached[id], at))
		}
		return true
	})
	slices.SortStableFunc(out.Workers, func(a, b api.Worker) int {
		if a.Slot != b.Slot {
			return a.Slot - b.Slot
		}
		return int(b.ID) - int(a.ID)
	})
	return out
}

// waiting describes a slot without a worker, under the name of its last one.
func waiting(s core.Slot, at core.Time) api.Worker {
	w := api.Worker{ID: uint64(s.Last), Slot: s.Index, Generation: s.Gen, State: "backoff", Restarts: s.Restarts, LastExit: s.LastExit}
	if s.Limited || s.Done {
		w.State = "failed"
	}
	if s.RetryAt != 0 {
		in := max(0, s.RetryAt.Sub(at).Seconds())
		w.RetrySeconds = &in
	}
	return w
}

// publicState names a state as the promise in the documentation does.
func publicState(s core.WorkerState) string {
	switch s {
	case core.Forking, core.Starting:
		return "starting"
	case core.Leaving, core.Draining:
		return "draining"
	case core.Unlinked, core.Killing:
		return "killing"
	}
	return string(s)
}

func (s *snapshot) workerStatus(w core.Worker, slot core.Slot, at core.Time) api.Worker {
	out := api.Worker{ID: uint64(w.ID), Slot: w.Slot, Generation: w.Gen, State: publicState(w.State), Connections: w.Connected,
		Restarts: slot.Restarts, LastExit: slot.LastExit, Status: w.Text}
	up := at.Sub(w.Begun).Seconds()
	out.UptimeSeconds = &up
	if w.Tells {
		out.Accepted = &w.Accepted
	}
	if w.PID == 0 {
		return out
	}
	out.PID = &w.PID
	if rss, cpu, _, _, err := proc.Stat(w.PID); err == nil {
		out.RSSBytes, out.CPUSeconds = &rss, &cpu
	}
	return out
}
