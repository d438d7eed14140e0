package master

import (
	"encoding/json"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
	"github.com/f72e338e/supervisord/internal/core"
	"github.com/f72e338e/supervisord/internal/dispatch"
	"github.com/f72e338e/supervisord/internal/proto"
)

// resumeSocket takes a handle's socket over.
func (m *Master) resumeSocket(l *legacy, h core.Handle) {
	file := l.files.take(handleName(h.ID))
	piece := m.pieceOf(l, h.ID)
	entry := &listening{file: file, bound: h.Bound, tls: piece.TLS, passes: piece.Passes}
	entry.bound.Blocking = piece.Blocking
	m.sockets[h.ID] = entry
	// systemd takes O_NONBLOCK away from the sockets of .socket units when it starts a
	// service, and so from those who hold them: whoever waits in accept(2) since then is
	// to look again.
	flags, err := unix.FcntlInt(uintptr(file.Fd()), unix.F_GETFL, 0)
	if err == nil && flags&unix.O_NONBLOCK == 0 && !piece.Blocking {
		m.setNonblock(file, h.ID, true)
		l.startled = append(l.startled, h.ID)
	}
	m.store.resume(handleName(h.ID), lendFile(file))
	m.watchSocket(h.ID, 0, h.Key.Network, file)
}

func (m *Master) pieceOf(l *legacy, h proto.HandleID) (piece socketPiece) {
	if data := l.pieces[socketKey(h)]; data != nil {
		if err := json.Unmarshal(data, &piece); err != nil {
			m.log.Error("how connections reach workers is not known any more", "handle", h, "err", err)
		}
	}
	return piece
}

// calm lets those look again who wait in accept(2) on a socket that was blocking for a
// moment.
func (m *Master) calm(l *legacy) {
	for _, w := range l.state.Workers {
		if p := m.workers[w.ID]; p == nil || p.proc == nil {
			continue
		}
		if slices.ContainsFunc(l.startled, func(id proto.HandleID) bool { return slices.Contains(w.Holds, id) }) {
			if isStopped(w.PID) { // by a predecessor that was killed while it did this
				m.signal(w.ID, int(unix.SIGCONT))
			}
			m.rouse(w.ID)
		}
	}
}

// resumeDispatch takes over how connections of a handle reach workers.
func (m *Master) resumeDispatch(l *legacy, h core.Handle) {
	piece, entry := m.pieceOf(l, h.ID), m.sockets[h.ID]
	if piece.Grouped {
		m.resumeGroup(l, h, entry)
	}
	policy := h.Policy
	if !proto.IsDispatched(policy) {
		policy = proto.PolicyLeastConnections
	}
	if piece.Dispatched {
		if err := m.dispatched(h.ID, policy); err != nil {
			m.log.Error("connections are not dispatched", "handle", h.ID, "err", err)
			return
		}
	} else if piece.Passes {
		if err := m.needDispatcher(); err != nil {
			return
		}
		m.dispatcher.Add(uint64(h.ID), dispatch.LeastConnections)
	}
	for _, w := range l.state.Workers {
		m.resumePart(l, h.ID, w)
	}
}

// resumePart takes over a worker's part in a dispatched handle.
func (m *Master) resumePart(l *legacy, h proto.HandleID, w core.Worker) {
	if p := m.workers[w.ID]; p != nil && p.node != nil {
		for _, id := range w.Holds {
			if id == h && m.sockets[h].dispatched {
				m.joinNode(w.ID, h)
			}
		}
		return
	}
	var files [3]*fdpass.File
	for i, what := range partFiles {
		files[i] = l.files.take(partName(h, w.ID, what))
	}
	if files[0] == nil || files[1] == nil || m.dispatcher == nil {
		fdpass.CloseAll(files[:])
		return
	}
	err := m.dispatcher.Join(uint64(h), dispatch.Member{Worker: uint64(w.ID), Slot: w.Slot, Limit: m.maxConnections(w),
		Channel: files[0], Far: files[1], Page: files[2], Admitted: isServing(w)})
	if err != nil {
		m.log.Error("worker not offered connections", "worker", w.ID, "handle", h, "err", err)
		return
	}
	for i, what := range partFiles {
		m.store.resume(partName(h, w.ID, what), m.lendPart(h, w.ID, i))
	}
}

// resumeGroup takes over the sockets of a handle that has one for each slot.
func (m *Master) resumeGroup(l *legacy, h core.Handle, entry *listening) {
	var members []*fdpass.File
	for i := 1; i < len(h.Members) || l.files.has(memberName(h.ID, i)); i++ {
		f := l.files.take(memberName(h.ID, i))
		members = append(members, f)
		if f != nil {
			m.store.resume(memberName(h.ID, i), lendFile(f))
			m.watchSocket(h.ID, i, h.Key.Network, f)
		}
	}
	parts := map[proto.WorkerID]*membership{}
	for _, w := range l.state.Workers {
		var piece memberPiece
		if data := l.pieces[memberKey(h.ID, w.ID)]; data == nil || json.Unmarshal(data, &piece) != nil {
			continue
		}
		page := l.files.take(partName(h.ID, w.ID, countName))
		parts[w.ID] = &membership{member: piece.Member, page: page}
		if page != nil {
			m.store.resume(partName(h.ID, w.ID, countName), lendFile(page))
		}
	}
	g, err := m.groupOf(h.ID)
	if err != nil {
		m.log.Error("sockets of a handle not taken over", "handle", h.ID, "err", err)
		fdpass.CloseAll(members)
		return
	}
	g.do(func() { g.resume(members, parts) })
}
