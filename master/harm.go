package master

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
	"github.com/f72e338e/supervisord/internal/core"
	"github.com/f72e338e/supervisord/internal/proto"
	"github.com/f72e338e/supervisord/internal/socket"
)

// What holders can do to a shared socket is noticed in two ways. A shut-down the
// kernel tells at once (watch). For the rest somebody has to look: before a socket is
// granted, when a worker becomes ready, when workers report, and for a status. There
// is no timer: while nothing happens nobody looks.

// lookEvery is how often the reports of workers make the master look at most.
const lookEvery = time.Second

// watchShut runs the watch of all listening sockets.
func (m *Master) watchShut() {
	defer m.pumps.Done()
	m.watch.run(func(s watched) {
		m.call(func() {
			entry := m.sockets[s.handle]
			if entry == nil || entry.file == nil || s.member == 0 && s.file != entry.file {
				return // closed, or replaced, meanwhile
			}
			m.step(core.Sabotaged{Handle: s.handle, Member: s.member, Shut: true, What: "shut down"})
		})
	})
}

// watchSocket begins to watch one of a handle's sockets, until watch.remove.
func (m *Master) watchSocket(id proto.HandleID, member int, network string, f *fdpass.File) {
	if proto.IsDatagram(network) {
		return
	}
	if err := m.watch.add(id, member, f); err != nil {
		m.log.Warn("a shut-down of a socket would be noticed late", "handle", id, "err", err)
	}
}

// look examines a handle's sockets and returns what it found; for a handle with
// members the group's goroutine looks, and tells later.
func (m *Master) look(id proto.HandleID) []core.Event {
	entry := m.sockets[id]
	if entry == nil || entry.file == nil {
		return nil
	}
	h, _ := m.core.Handle(id)
	network, bound := h.Key.Network, entry.bound
	if g := entry.group; g != nil {
		g.do(func() { g.look(network, bound) })
		return nil
	}
	found := damage(entry.file, network, bound, core.Sabotaged{Handle: id, Since: max(1, entry.seen)})
	if len(found) == 0 {
		entry.seen = now()
	}
	return found
}

func damage(f *fdpass.File, network string, bound proto.Bound, ev core.Sabotaged) (list []core.Event) {
	for _, d := range socket.Examine(f.Fd(), network, bound) {
		ev.Shut, ev.Blocking, ev.What = d.Shut, d.Blocking, d.What
		list = append(list, ev)
	}
	return list
}

// lookAtAll is for a moment in which the core is at rest.
func (m *Master) lookAtAll() {
	m.lookedAt = now()
	var found []core.Event
	for id := range m.sockets {
		found = append(found, m.look(id)...)
	}
	for _, ev := range found {
		m.step(ev)
	}
}

// lookOf looks at what a worker holds that became ready.
func (m *Master) lookOf(worker proto.WorkerID) {
	w, _ := m.core.Worker(worker)
	for _, id := range w.Holds {
		m.later = append(m.later, m.look(id)...)
		h, _ := m.core.Handle(id)
		if entry := m.sockets[id]; entry != nil && proto.IsUnix(h.Key.Network) && entry.bound.Backlog > 0 {
			// The kernel does not tell whether the worker has changed it.
			_, _ = socket.Relisten(entry.file.Fd(), entry.bound.Backlog)
		}
	}
}

// heard looks now and then while workers report.
func (m *Master) heard(ev core.Event) {
	r, ok := ev.(core.Received)
	if !ok {
		return
	}
	switch r.Envelope.Body.(type) {
	case proto.Counts, proto.Status, proto.Heartbeat:
		if now().Sub(m.lookedAt) >= lookEvery {
			m.lookAtAll()
		}
	}
}

// stopTries is how many milliseconds a process that is no child has to stop.
const stopTries = 100

// rouse stops a worker and lets it go on, which is the one thing that interrupts
// every thread of any program, and harms none: what was interrupted is begun again by
// the kernel (signal(7), "Interruption of system calls"). One that somebody else has
// stopped is left so.
func (m *Master) rouse(worker proto.WorkerID) {
	p := m.workers[worker]
	if p == nil || p.proc == nil || isStopped(p.proc.PID()) {
		return
	}
	m.pumps.Add(1)
	go func() {
		defer m.pumps.Done()
		if p.proc.Signal(unix.SIGSTOP) != nil {
			return
		}
		defer func() { _ = p.proc.Signal(unix.SIGCONT) }()
		// SIGCONT would take back a SIGSTOP that was not acted on yet. WNOWAIT: an exit
		// is for awaitExit.
		err := unix.EINTR
		for err == unix.EINTR {
			err, _ = unix.Waitid(unix.P_PID, p.proc.PID(), nil, unix.WSTOPPED|unix.WEXITED|unix.WNOWAIT, nil).(unix.Errno)
		}
		for i := 0; err == unix.ECHILD && i < stopTries && !isStopped(p.proc.PID()); i++ {
			<-time.After(time.Millisecond) // an earlier master's child
		}
	}()
}

// isStopped reads the state out of proc_pid_stat(5).
func isStopped(pid int) bool {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, state, _ := strings.Cut(string(text[bytes.LastIndexByte(text, ')')+1:]), " ")
	return strings.HasPrefix(state, "T")
}

// mend puts a handle's sockets back as they were.
func (m *Master) mend(a core.Mend) {
	entry := m.sockets[a.Handle]
	if entry == nil || entry.file == nil {
		return
	}
	bound := entry.bound
	if g := entry.group; g != nil {
		g.do(func() { g.mend(a, bound) })
		return
	}
	bound, _, err := socket.Mend(entry.file.Fd(), a.Spec.Network, bound)
	switch {
	case err == nil:
		entry.bound = bound
		m.later = append(m.later, core.Mended{Handle: a.Handle, Bound: bound})
	case entry.bound.Inherited:
		m.later = append(m.later, core.Mended{Handle: a.Handle, Cause: err.Error() + " (it came from systemd: restart its .socket unit)"})
	default:
		m.renew(a, entry, err)
	}
}

// renew makes another socket at the address in the place of one that cannot be
// mended, and why. A port is the one that it got.
func (m *Master) renew(a core.Mend, entry *listening, why error) {
	spec, old := a.Spec, entry.bound
	if old.Port != 0 {
		spec.Port = old.Port
	}
	m.pumps.Add(1)
	go func() {
		defer m.pumps.Done()
		_ = socket.Unlink(old) // if somebody else has the path now, Bind says so
		file, bound, err := socket.Bind(spec)
		if err != nil {
			err = fmt.Errorf("%w; %w", why, explain(err, spec))
		}
		if !m.call(func() { m.renewed(a.Handle, entry, file, bound, err) }) {
			_ = file.Close()
			_ = socket.Unlink(bound)
		}
	}()
}

// renewed takes the new socket, or closes it when the handle was released meanwhile.
func (m *Master) renewed(id proto.HandleID, entry *listening, file *fdpass.File, bound proto.Bound, err error) {
	switch {
	case m.sockets[id] != entry:
		_ = file.Close()
		_ = socket.Unlink(bound)
		return
	case err != nil:
		m.step(core.Mended{Handle: id, Cause: err.Error()})
		return
	}
	m.watch.remove(entry.file)
	_ = entry.file.Close()
	entry.file, entry.bound = file, bound
	h, _ := m.core.Handle(id)
	if entry.dispatched { // who has a channel keeps it
		m.dispatcher.DropSockets(uint64(id))
		entry.dispatched = false
		m.noteSocket(id)
		if proto.IsDispatched(h.Policy) {
			if err := m.dispatched(id, h.Policy); err != nil {
				m.log.Error("socket not dispatched", "handle", id, "err", err)
			}
		}
	}
	m.watchSocket(id, 0, h.Key.Network, file)
	m.step(core.Mended{Handle: id, Bound: bound, Anew: true})
}

// look examines the group's sockets; see Master.look.
func (g *group) look(network string, bound proto.Bound) {
	order := true
	for i, f := range g.files {
		if f == nil {
			continue
		}
		for _, ev := range damage(f, network, bound, core.Sabotaged{Handle: g.id, Member: i, Since: max(1, g.seen)}) {
			order = false
			g.m.post(ev)
		}
	}
	if order {
		g.seen = now()
	}
}

// mend puts all sockets of the group back. One that listens again is the last of
// the kernel's group now.
func (g *group) mend(a core.Mend, bound proto.Bound) {
	var failed error
	for i, f := range g.files {
		if f == nil {
			continue
		}
		b, revived, err := socket.Mend(f.Fd(), a.Spec.Network, bound)
		switch {
		case err != nil:
			failed = err
		case revived:
			g.add(i, f)
		}
		if i == 0 && err == nil {
			bound.Backlog = b.Backlog
		}
	}
	g.m.call(func() {
		ev := core.Mended{Handle: g.id, Bound: bound}
		if failed != nil {
			ev.Cause = failed.Error()
		}
		if entry := g.m.sockets[g.id]; entry != nil {
			entry.bound = bound
			g.m.step(ev)
		}
	})
}

// relisten changes the backlog of all sockets of the group but the first.
func (g *group) relisten(backlog int) {
	for _, f := range g.files[1:] {
		if f != nil {
			_, err := socket.Relisten(f.Fd(), backlog)
			g.warn("backlog of a member not changed", err)
		}
	}
}
