package master

import (
	"errors"

	"github.com/hashicorp/go-hclog"

	"github.com/f72e338e/supervisord/config"
	"github.com/f72e338e/supervisord/internal/api"
	"github.com/f72e338e/supervisord/internal/core"
	"github.com/f72e338e/supervisord/systemd"
)

// Commands run in the goroutine of whoever asks: files are read there, and only
// the finished wish is posted to the loop. taken is called with the operation's
// number once there is one (a wish can be refused before), then done, once, with
// what came of it. Both are called from any goroutine and must not block.

// reload loads the configuration again. A bad one changes nothing.
func (m *Master) reload(taken func(core.OpID), done func(api.Result)) {
	m.control.heal()
	m.tell(systemd.Reloading(systemd.Monotonic()), systemd.Status("reloading"))
	answer := done
	done = func(res api.Result) {
		m.tell(systemd.Ready(), systemd.Status("serving")) // also when it failed: what served before still does
		answer(res)
	}
	if m.opts.Load == nil {
		done(api.Result{Error: "this daemon runs without a configuration file, so there is nothing to reload", Kind: api.KindUsage})
		return
	}
	cfg, err := m.opts.Load()
	if err != nil {
		m.log.Error("configuration refused", "err", err.Error())
		done(api.Result{Error: err.Error(), Kind: api.KindConfig})
		return
	}
	planned, err := m.launches.plan(cfg)
	if err != nil {
		done(api.Result{Error: err.Error(), Kind: api.KindFailed})
		return
	}
	ok := m.call(func() {
		op := m.newOp(func(res core.Result) { done(m.result(res)) })
		taken(op)
		m.pending[op] = candidate{cfg, planned}
		m.step(core.Configured{Op: op, Kind: "reload", Config: planned})
	})
	if !ok {
		done(stopped)
	}
}

var stopped = api.Result{Error: "the master has stopped", Kind: api.KindFailed}

// candidate is a configuration that was asked for and is not in force yet.
type candidate struct {
	file *config.Config
	core core.Config
}

// inForce notes that the configuration of an operation was applied.
func (m *Master) inForce(op core.OpID) {
	c, ok := m.pending[op]
	if !ok {
		return
	}
	delete(m.pending, op)
	m.current, m.applied = c.core, true
	m.noteDaemon()
	m.log.SetLevel(hclog.LevelFromString(c.file.Supervisor.LogLevel))
}

// restart replaces the workers of a pool, or with "" of all, by new ones of the
// generation they are on, with the executable looked up anew. While a roll-out of
// one of them is under way it waits for its end: only then is it clear what there
// is to be restarted.
func (m *Master) restart(pool string, taken func(core.OpID), done func(api.Result)) {
	if len(m.running(pool)) == 0 {
		done(api.Result{Error: "there is no pool " + pool, Kind: api.KindUsage})
		return
	}
	var op core.OpID
	if !m.call(func() { op = m.newOp(func(res core.Result) { done(m.result(res)) }) }) {
		done(stopped)
		return
	}
	taken(op)
	m.restarting.Lock() // in the order in which they came
	defer m.restarting.Unlock()
	for {
		_, wake := m.ring.since(m.ring.last())
		if !m.tryRestart(pool, op, done) {
			return
		}
		select {
		case <-wake:
		case <-m.done:
			done(stopped)
			return
		}
	}
}

// tryRestart returns busy when a roll-out is under way.
func (m *Master) tryRestart(pool string, op core.OpID, done func(api.Result)) (busy bool) {
	running := m.running(pool)
	if len(running) == 0 { // removed while this waited
		m.call(func() { delete(m.replies, op) })
		done(api.Result{Error: "there is no pool " + pool + " any more", Kind: api.KindFailed})
		return false
	}
	planned := map[string]core.PoolSpec{}
	drop := func() {
		for _, spec := range planned {
			m.launches.forget(spec.Launch)
		}
	}
	for name, r := range running {
		spec, err := m.launches.planPool(r.pool, r.ways...)
		if err != nil {
			drop()
			m.call(func() { delete(m.replies, op) })
			done(api.Result{Error: err.Error(), Kind: api.KindFailed})
			return false
		}
		planned[name] = spec
	}
	ok := m.call(func() {
		for name := range planned {
			if p, ok := m.core.Pool(name); !ok || p.Rollout != nil {
				busy = true
				return
			}
		}
		m.step(m.restartEvent(op, planned))
	})
	if busy {
		drop()
	}
	if !ok {
		done(stopped)
	}
	return busy
}

// running returns how the workers of a pool, or of all, are started now.
func (m *Master) running(pool string) map[string]*launch {
	out := map[string]*launch{}
	m.snapshot.Load().pools.Scan(func(name string, p core.Pool) bool {
		if pool != "" && name != pool || p.Removed {
			return true
		}
		for _, g := range p.Gens {
			if r := m.launches.get(g.Spec.Launch); g.Number == p.Gen && r != nil {
				out[name] = r
			}
		}
		return true
	})
	return out
}

func (m *Master) restartEvent(op core.OpID, planned map[string]core.PoolSpec) core.Configured {
	ev := core.Configured{Op: op, Kind: "restart", Config: core.Config{Listeners: m.current.Listeners, MaxHandles: m.current.MaxHandles}}
	for _, p := range m.current.Pools {
		if spec, ok := planned[p.Name]; ok {
			spec.Desired = p.Desired
			p = spec
			ev.Force = append(ev.Force, p.Name)
		}
		ev.Config.Pools = append(ev.Config.Pools, p)
	}
	ev.Only = ev.Force
	return ev
}

func (m *Master) scale(pool string, n int, taken func(core.OpID), done func(api.Result)) {
	if _, ok := m.snapshot.Load().pools.Get(pool); !ok {
		done(api.Result{Error: "there is no pool " + pool, Kind: api.KindUsage})
		return
	}
	ok := m.call(func() {
		op := m.newOp(func(res core.Result) { done(m.result(res)) })
		taken(op)
		m.step(core.ScaleAsked{Op: op, Pool: pool, N: n})
	})
	if !ok {
		done(stopped)
	}
}

func (m *Master) stop(fast bool, taken func(core.OpID), done func(api.Result)) {
	ok := m.call(func() {
		op := m.newOp(func(res core.Result) { done(m.result(res)) })
		taken(op)
		m.log.Info("stop asked", "cause", "command")
		m.step(core.StopAsked{Op: op, Fast: fast})
	})
	if !ok {
		done(api.Result{}) // it has stopped already
	}
}

// connections gathers counts. The error is of the request, not of a worker.
func (m *Master) connections(pool string, timeoutMS int64) (api.Connections, error) {
	got := make(chan core.Result, 1)
	if !m.call(func() {
		op := m.newOp(func(res core.Result) { got <- res })
		m.step(core.CountsAsked{Op: op, Pool: pool, TimeoutMS: timeoutMS})
	}) {
		return api.Connections{}, errors.New(stopped.Error)
	}
	select {
	case res := <-got:
		if res.Error != "" {
			return api.Connections{}, errors.New(res.Error)
		}
		out := api.Connections{Total: res.Counts.Total, Workers: []api.WorkerCount{}, Missing: []api.WorkerCount{}}
		for _, c := range res.Counts.Workers {
			out.Workers = append(out.Workers, countOf(c))
		}
		for _, c := range res.Counts.Missing {
			out.Missing = append(out.Missing, countOf(c))
		}
		return out, nil
	case <-m.done:
		return api.Connections{}, errors.New(stopped.Error)
	}
}

func countOf(c core.WorkerCount) api.WorkerCount {
	return api.WorkerCount{Pool: c.Pool, Slot: c.Slot, Worker: uint64(c.Worker), PID: c.PID, Connections: c.Connections, Reason: c.Reason}
}

// result adds the last lines of the worker that is the cause.
func (m *Master) result(res core.Result) api.Result {
	out := api.Result{Error: res.Error, Pool: res.Pool, Worker: uint64(res.Worker)}
	if res.Error != "" {
		out.Kind = api.KindFailed
	}
	if res.Worker != 0 {
		out.Output = m.tails.of(res.Worker)
	}
	return out
}
