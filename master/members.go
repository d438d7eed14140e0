package master

import (
	"os"
	"time"

	"github.com/f72e338e/supervisord/fdpass"
	"github.com/f72e338e/supervisord/internal/core"
	"github.com/f72e338e/supervisord/internal/proto"
	"github.com/f72e338e/supervisord/internal/steer"
)

// noBPF keeps the master from steering with eBPF, for comparison and in case of need.
const noBPF = "SUPERVISORD_NO_BPF"

// sendMembers sends a message that brings members of a handle. It goes out when the
// group has made them.
func (m *Master) sendMembers(a core.Send, data []byte) {
	g, err := m.groupOf(a.Handle)
	if err != nil {
		m.ungranted(a.Worker, a.Handle, err)
		return
	}
	h, _ := m.core.Handle(a.Handle)
	g.do(func() { g.send(a.Worker, a.Members, a.Envelope.Body, data, h.Spec) })
	_, isGrant := a.Envelope.Body.(proto.Grant)
	if w, _ := m.core.Worker(a.Worker); isGrant && w.ReadyAt != 0 && !w.Barred && h.Policy == proto.PolicyReusePort {
		g.do(func() { g.serve(a.Worker) })
	}
	m.offerPassed(a)
}

// deliver sends what a group has prepared; the files stay the group's.
func (m *Master) deliver(worker proto.WorkerID, data []byte, files []*fdpass.File) {
	p := m.workers[worker]
	if p == nil || p.link == nil {
		return
	}
	if err := p.link.send(data, files...); err != nil {
		m.later = append(m.later, core.LinkBroken{Worker: worker, Cause: "does not read its link: " + err.Error()})
	}
}

// ungranted is the end of a worker that was promised a socket and cannot be given it.
func (m *Master) ungranted(worker proto.WorkerID, handle proto.HandleID, err error) {
	m.log.Error("socket not granted", "worker", worker, "handle", handle, "err", err)
	m.later = append(m.later, core.LinkBroken{Worker: worker, Cause: "cannot be granted a socket: " + err.Error()})
}

// groupOf makes a group of a handle's socket.
func (m *Master) groupOf(id proto.HandleID) (*group, error) {
	entry := m.sockets[id]
	if entry.group != nil {
		return entry.group, nil
	}
	first, err := entry.file.Dup()
	if err != nil {
		return nil, err
	}
	h, _ := m.core.Handle(id)
	o := steer.Options{Datagram: proto.IsDatagram(h.Key.Network), NoBPF: os.Getenv(noBPF) != ""}
	entry.group = newGroup(m, id, entry.bound.Address, first, o)
	m.noteSocket(id)
	m.setSteering(core.SetPolicy{Handle: id, Policy: h.Policy})
	return entry.group, nil
}

// setSteering follows a change of policy: away from reuse_port everything goes to
// the handle's own socket, and is no worker's alone.
func (m *Master) setSteering(a core.SetPolicy) {
	entry := m.sockets[a.Handle]
	if entry == nil || entry.group == nil {
		return
	}
	only := 0
	if a.Policy == proto.PolicyReusePort {
		only = -1
	}
	g := entry.group
	g.do(func() { g.only(only) })
	if entry.dispatched && proto.IsDispatched(a.Policy) {
		h, _ := m.core.Handle(a.Handle)
		g.do(func() { g.dispatch(h.Spec) })
	}
}

// groups calls fn for the group of each handle that has members, in its goroutine.
func (m *Master) groups(fn func(*group)) {
	for _, entry := range m.sockets {
		if g := entry.group; g != nil {
			g.do(func() { fn(g) })
		}
	}
}

// withdraw ends a living worker's part in a handle.
func (m *Master) withdraw(worker proto.WorkerID, handle proto.HandleID) {
	entry := m.sockets[handle]
	if entry == nil {
		return
	}
	if g := entry.group; g != nil {
		g.do(func() { g.withdraw(worker) })
	}
	if entry.dispatched || entry.passes {
		m.dispatcher.Leave(uint64(handle), uint64(worker))
	}
	m.dropCount(handle, worker)
}

// What a steered group counts drifts: a connection that is picked for a member and
// never completed stays in its load. The group finds out by looking twice, so it is
// let look settleTimes, settleEvery apart, after a worker told new counts; then not
// any more until the next does.
const (
	settleEvery = 8 * time.Second
	settleTimes = 3
)

func (m *Master) settleAfter(ev core.Event) {
	r, ok := ev.(core.Received)
	if !ok {
		return
	}
	if _, ok := r.Envelope.Body.(proto.Counts); !ok {
		return
	}
	for _, entry := range m.sockets {
		if entry.group != nil {
			m.settles = settleTimes
			if m.settleAt == 0 {
				m.settleAt = now().Add(settleEvery)
			}
			return
		}
	}
}

// settle is called when the timer has run.
func (m *Master) settle() {
	if m.settleAt == 0 || now() < m.settleAt {
		return
	}
	m.groups(func(g *group) { g.steer.Settle() })
	m.settleAt = 0
	if m.settles--; m.settles > 0 {
		m.settleAt = now().Add(settleEvery)
	}
}
