package master

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
	"github.com/f72e338e/supervisord/internal/core"
	"github.com/f72e338e/supervisord/internal/proc"
	"github.com/f72e338e/supervisord/internal/proto"
)

// heir is a worker of an earlier master.
type heir struct {
	p      *process
	events []core.Event // what is to be told of it
	gone   bool         // it has no process
	attend func()       // begins to hear it; nil when there is nobody to hear
}

func (h heir) tell(m *Master) {
	if h.gone {
		m.dropWorker(h.p.id)
		h.p.close()
		delete(m.workers, h.p.id)
	}
	for _, ev := range h.events {
		m.step(ev)
	}
}

// resumeWorker takes a worker over: the process, and what it speaks over.
func (m *Master) resumeWorker(l *legacy, w core.Worker) heir {
	h := heir{p: &process{id: w.ID, gone: make(chan struct{})}}
	m.workers[w.ID] = h.p
	r := m.launchOf(w)
	pr, err := m.resumeProcess(l, w)
	if err != nil || r == nil {
		h.gone = true
		if w.State == core.Forking && r != nil {
			h.events = append(h.events, core.StartLost{Worker: w.ID})
			return h
		}
		m.log.Warn("worker not found again", "worker", w.ID, "pid", w.PID, "err", err)
		h.events = append(h.events, core.Exited{Worker: w.ID})
		return h
	}
	if (w.State == core.Starting || w.State == core.Forking) && r.pool.Protocol == core.ProtocolNode {
		// It says nothing twice, and what the dead master had read of it may be lost.
		m.log.Info("worker started again: it was starting when the master died", "worker", w.ID, "pid", pr.PID())
		_ = pr.KillTree()
		_, _ = pr.Wait()
		_ = pr.Close()
		h.gone = true
		h.events = append(h.events, core.StartLost{Worker: w.ID})
		return h
	}
	h.p.proc = pr
	if w.PID == 0 {
		h.events = append(h.events, core.Spawned{Worker: w.ID, PID: pr.PID()})
	}
	if lost := m.resumeLink(l, w, r, h.p); lost != nil {
		m.log.Warn("worker not heard any more", "worker", w.ID, "pid", pr.PID(), "err", lost)
		h.events = append(h.events, core.LinkBroken{Worker: w.ID, Cause: "the master died, and " + lost.Error()})
	}
	out := m.resumeOutput(l, w, r)
	var handles []proto.HandleID
	if p, ok := m.core.Pool(w.Pool); ok {
		for _, g := range p.Gens {
			if g.Number == w.Gen {
				handles = g.Handles
			}
		}
	}
	h.attend = func() { m.attend(h.p, pr, out, r, handles) }
	return h
}

// launchOf is how a worker was started.
func (m *Master) launchOf(w core.Worker) *launch {
	p, _ := m.core.Pool(w.Pool)
	for _, g := range p.Gens {
		if g.Number == w.Gen {
			return m.launches.get(g.Spec.Launch)
		}
	}
	return nil
}

var errNoProcess = errors.New("nobody knows its process")

func (m *Master) resumeProcess(l *legacy, w core.Worker) (*proc.Process, error) {
	file, pid := l.files.take(pidName(w.ID)), w.PID
	if file == nil && pid == 0 {
		if pid = m.findProcess(w.ID); pid == 0 {
			return nil, errNoProcess
		}
	}
	if file == nil {
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			return nil, err
		}
		if file = fdpass.NewFile(fd); !m.isTagged(pid, w.ID) {
			_ = file.Close()
			return nil, errNoProcess
		}
		m.store.put(pidName(w.ID), lendFile(file))
	}
	if pid == 0 {
		var err error
		if pid, err = proc.PIDOf(file); err != nil || pid <= 0 {
			_ = file.Close()
			return nil, errNoProcess
		}
	}
	pr, err := proc.Adopt(pid, file)
	if err == nil {
		m.store.resume(pidName(w.ID), lendFile(pr.PIDFile()))
	}
	return pr, err
}

// findTries times findEvery is how long a process is looked for that was just forked.
const (
	findTries = 20
	findEvery = 5 * time.Millisecond
)

// findProcess finds the process of a worker that nobody has noted, 0 for none.
func (m *Master) findProcess(id proto.WorkerID) int {
	for range findTries {
		dirs, _ := filepath.Glob("/proc/[0-9]*")
		for _, dir := range dirs {
			pid, err := strconv.Atoi(filepath.Base(dir))
			if err != nil || !m.isTagged(pid, id) {
				continue
			}
			if sid, err := unix.Getsid(pid); err == nil && sid == pid {
				return pid
			}
		}
		<-time.After(findEvery)
	}
	return 0
}

func (m *Master) isTagged(pid int, id proto.WorkerID) bool {
	environ, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
	return err == nil && strings.Contains("\x00"+string(environ)+"\x00", "\x00"+m.tagOf(id)+"\x00")
}

// resumeLink takes over what a worker speaks over. The error says why it cannot.
func (m *Master) resumeLink(l *legacy, w core.Worker, r *launch, p *process) (err error) {
	id := w.ID
	switch {
	case r.pool.Protocol == core.ProtocolSystemd:
		f := l.files.take(notifyName(id))
		if f == nil {
			return errNotKept
		}
		p.notify, err = m.resumeNotifyLink(id, f)
		return err
	case !w.Linked:
		return nil
	case r.pool.Protocol == core.ProtocolNode:
		f, page := l.files.take(nodeName(id)), l.files.take(nodePageName(id))
		if f == nil || page == nil {
			_, _ = f.Close(), page.Close()
			return errNotKept
		}
		s := nodePiece{Policy: nodePolicy(r.environment())}
		if data := l.pieces[nodeKey(id)]; data != nil {
			if err := json.Unmarshal(data, &s); err != nil {
				return err
			}
		}
		p.node, err = m.resumeNodeLink(id, f, page, s)
		return err
	}
	f := l.files.take(linkName(id))
	if f == nil {
		return errNotKept
	}
	conn, err := fdpass.NewConn(f)
	if err != nil {
		return err
	}
	p.link = newWorkerLink(m, id, conn)
	m.store.resume(linkName(id), lendConn(conn))
	return nil
}

var errNotKept = errors.New("its link was not kept")

// resumeOutput reads on where the earlier master read.
func (m *Master) resumeOutput(l *legacy, w core.Worker, r *launch) *output {
	o, err := newOutput(m, core.Spawn{Worker: w.ID, Pool: w.Pool, Slot: w.Slot}, r)
	if err != nil {
		m.log.Warn("output of a worker is not written to its file", "worker", w.ID, "err", err)
	}
	f := l.files.take(outputName(w.ID))
	if f == nil || unix.SetNonblock(f.Fd(), true) != nil {
		_ = f.Close()
		return o
	}
	o.read = os.NewFile(uintptr(f.Release()), "output of "+o.label)
	m.store.resume(outputName(w.ID), lendConn(o.read))
	return o
}
