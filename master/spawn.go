package master

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
	"github.com/f72e338e/supervisord/internal/core"
	"github.com/f72e338e/supervisord/internal/proc"
	"github.com/f72e338e/supervisord/internal/proto"
)

// process is what the loop keeps of a worker.
type process struct {
	id   proto.WorkerID
	proc *proc.Process // nil until it was forked
	link *workerLink   // nil without one
	node *nodeLink     // nil but for a worker of Node's protocol

	notify *notifyLink   // nil but for a worker of systemd's
	gone   chan struct{} // closed when it has ended
}

// exitGrace is how long the exit of a worker waits for the end of its link and of
// its output. Both end with it, unless something that it started holds them.
const exitGrace = 250 * time.Millisecond

// spawn starts a worker in a goroutine. The link is there before the fork, so
// that nothing the worker says can be lost.
func (m *Master) spawn(a core.Spawn) {
	r := m.launches.get(a.Launch)
	p := &process{id: a.Worker, gone: make(chan struct{})}
	m.workers[a.Worker] = p
	g, err := m.connect(a, r, p)
	if err != nil {
		m.dropWorker(a.Worker)
		m.later = append(m.later, core.SpawnFailed{Worker: a.Worker, Cause: err.Error()})
		delete(m.workers, a.Worker)
		return
	}
	m.pumps.Add(1)
	go func() {
		defer m.pumps.Done()
		m.spawning <- struct{}{}
		defer func() { <-m.spawning }()
		m.start(a, r, p, g)
	}()
}

// tagOf is the variable that a worker's processes have in their environment, and no
// others: another daemon's workers have the same numbers.
func (m *Master) tagOf(id proto.WorkerID) string {
	return fmt.Sprintf("SUPERVISORD_TAG=%016x-%d", m.tag, id)
}

// gift is what a worker gets with its start.
type gift struct {
	files     []*fdpass.File // 3, 4, 5 ... of the worker, which it owns
	env       []string
	listenPID bool
}

func (g gift) close() { fdpass.CloseAll(g.files) }

// connect makes what the worker and the master speak over.
func (m *Master) connect(a core.Spawn, r *launch, p *process) (gift, error) {
	switch {
	case r.pool.Protocol == core.ProtocolSystemd:
		return m.endow(a, r, p)
	case !a.Linked:
		return gift{}, nil
	case r.pool.Protocol == core.ProtocolNode:
		near, far, err := nodePair()
		if err == nil {
			p.node, err = m.newNodeLink(a.Worker, near, nodePolicy(r.environment()))
		}
		if err != nil {
			_ = far.Close()
			return gift{}, err
		}
		return gift{files: []*fdpass.File{far}, env: nodeEnv(a)}, nil
	}
	near, other, err := fdpass.Pair()
	if err != nil {
		return gift{}, err
	}
	far, err := other.Detach()
	if err != nil {
		_ = near.Close()
		return gift{}, err
	}
	p.link = newWorkerLink(m, a.Worker, near)
	m.store.put(linkName(a.Worker), lendConn(near))
	return gift{files: []*fdpass.File{far}, env: []string{"SUPERVISORD_FD=3"}}, nil
}

// start forks, and hands the process over by a call. It does not wait for the stage
// to become the command, which may hang on a dead file server and must not keep
// other pools from starting theirs; awaitExit tells when that failed.
func (m *Master) start(a core.Spawn, r *launch, p *process, g gift) {
	defer g.close()
	out, err := openOutput(m, a, r)
	if err != nil {
		m.call(func() { m.spawnFailed(a.Worker, err.Error()) })
		return
	}
	order := r.order(a)
	order.Files, order.SetListenPID = g.files, g.listenPID
	order.Env = append(order.Env, m.tagOf(a.Worker))
	order.Env = append(order.Env, g.env...)
	order.Stdout, order.Stderr = out.files()
	order.Mark = m.tagOf(a.Worker)
	if out.read != nil {
		m.store.put(outputName(a.Worker), lendConn(out.read))
	}
	pr, err := proc.Start(order)
	out.started()
	if err != nil {
		m.store.drop(outputName(a.Worker))
		out.close()
		m.call(func() { m.spawnFailed(a.Worker, "cannot fork: "+err.Error()) })
		return
	}
	m.store.put(pidName(a.Worker), lendFile(pr.PIDFile()))
	g.close() // the worker's copy is the only one: its end is the link's end
	m.call(func() {
		p.proc = pr
		m.step(core.Spawned{Worker: a.Worker, PID: pr.PID()})
	})
	m.attend(p, pr, out, r, a.Handles)
}

// attend begins to hear a worker, and to wait for its end.
func (m *Master) attend(p *process, pr *proc.Process, out *output, r *launch, handles []proto.HandleID) {
	m.pumps.Add(2)
	go m.pumpOutput(p.id, out)
	go m.awaitExit(p, pr, out)
	if p.link != nil {
		m.pumps.Add(1)
		go p.link.read()
	}
	if p.node != nil {
		m.pumps.Add(1)
		go p.node.read()
	}
	if p.notify != nil {
		p.notify.leader = pr.PID()
		m.pumps.Add(1)
		go p.notify.read()
	}
	if p.notify != nil && r.pool.Ready == core.ReadyListening {
		m.pumps.Add(1)
		go m.awaitAccepting(p.id, pr.PID(), handles, p.gone)
	}
}

// spawnFailed runs in the loop.
func (m *Master) spawnFailed(id proto.WorkerID, cause string) {
	m.dropWorker(id)
	if p := m.workers[id]; p != nil {
		p.close()
	}
	delete(m.workers, id)
	m.step(core.SpawnFailed{Worker: id, Cause: cause})
}

// close ends what the master speaks to the worker over.
func (p *process) close() {
	if p.link != nil {
		p.link.close()
	}
	if p.node != nil {
		p.node.m.dispatcher.RemovePeer(uint64(p.id))
	}
	if p.notify != nil {
		p.notify.close()
	}
}

// awaitExit waits for the end of a worker, then for what it had still to say: why
// it could not be started, its last messages and lines. All of it is in the loop's
// inbox before the exit is.
func (m *Master) awaitExit(p *process, pr *proc.Process, out *output) {
	defer m.pumps.Done()
	id := p.id
	exit, err := pr.Wait()
	if err != nil {
		m.log.Error("exit of a worker not known", "worker", id, "err", err)
	}
	close(p.gone)
	timer := time.NewTimer(exitGrace)
	defer timer.Stop()
	ended := []<-chan struct{}{out.ended}
	if p.link != nil {
		ended = append(ended, p.link.ended)
	}
	if p.node != nil {
		ended = append(ended, p.node.ended)
	}
	for _, ch := range ended {
		select {
		case <-ch:
			continue
		case <-timer.C:
		}
		break
	}
	if err := pr.Started(); err != nil {
		m.post(core.StageFailed{Worker: id, Cause: err.Error()})
	}
	ev := core.Exit{Known: exit.Known, Code: exit.Code, Core: exit.CoreDumped}
	if exit.Signal != 0 {
		ev.Signal = unix.SignalName(unix.Signal(exit.Signal))
	}
	m.call(func() { m.ended(p, ev) })
	_ = pr.Close()
	p.close() // also when the loop has ended meanwhile
}

// ended tells the core of the end of a worker, of which everything was heard.
func (m *Master) ended(p *process, exit core.Exit) {
	m.dropWorker(p.id)
	p.close()
	delete(m.workers, p.id)
	m.groups(func(g *group) { g.withdraw(p.id) })
	if m.dispatcher != nil {
		m.dispatcher.Leave(0, uint64(p.id)) // it is dead: what it had not accepted goes to others
	}
	m.step(core.Exited{Worker: p.id, Exit: exit})
}

// signal sends the stop signal. ESRCH means that the exit is on its way.
func (m *Master) signal(id proto.WorkerID, sig int) {
	if p := m.workers[id]; p != nil && p.proc != nil {
		if err := p.proc.Signal(unix.Signal(sig)); err != nil && err != unix.ESRCH {
			m.log.Warn("signal not sent", "worker", id, "signal", unix.SignalName(unix.Signal(sig)), "err", err)
		}
	}
}

func (m *Master) kill(id proto.WorkerID) {
	if p := m.workers[id]; p != nil && p.proc != nil {
		if err := p.proc.KillTree(); err != nil && err != unix.ESRCH {
			m.log.Warn("signal not sent", "worker", id, "signal", "SIGKILL", "err", err)
		}
	}
}
