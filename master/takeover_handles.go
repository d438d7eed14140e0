package master

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

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
	m.resumeParts(l, h.ID)
	for _, w := range l.state.Workers {
		if p := m.workers[w.ID]; p != nil && p.node != nil && piece.Dispatched && slices.Contains(w.Holds, h.ID) {
			m.joinNode(w.ID, h.ID)
		}
	}
}

// resumeParts takes over the workers' parts in a dispatched handle. Of a part that its
// worker had given back, or whose worker had ended, what was not read is taken back now.
func (m *Master) resumeParts(l *legacy, h proto.HandleID) {
	parts := l.partsOf(h)
	for i, p := range parts {
		w, ok := m.core.Worker(p.worker)
		last := i+1 == len(parts) || parts[i+1].worker != p.worker
		var files [len(partFiles)]*fdpass.File
		for i, what := range partFiles {
			files[i] = l.files.take(partName(p, what))
		}
		if files[0] == nil || files[1] == nil || m.dispatcher == nil {
			fdpass.CloseAll(files[:])
			continue
		}
		stays := ok && last && slices.Contains(w.Holds, h)
		err := m.dispatcher.Join(uint64(h), dispatch.Member{Worker: uint64(p.worker), Slot: w.Slot, Part: p.number, Limit: m.maxConnections(w),
			Channel: files[0], Far: files[1], Page: files[2], Admitted: stays && isServing(w)})
		if err != nil {
			m.log.Error("worker not offered connections", "worker", p.worker, "handle", h, "err", err)
			continue
		}
		m.kept[p.number] = p
		for i, what := range partFiles {
			m.store.resume(partName(p, what), m.lendPart(p, i))
		}
		if !stays {
			m.dispatcher.Leave(uint64(h), uint64(p.worker))
		}
	}
}

// partsOf returns the parts in a handle that were kept, by worker, and the oldest first.
func (l *legacy) partsOf(h proto.HandleID) (list []part) {
	for name := range l.files {
		p := part{handle: h}
		text, ok := strings.CutPrefix(name, keptName("part", h)+".")
		if !ok || !strings.HasSuffix(text, "."+partFiles[0]) {
			continue
		}
		if n, err := fmt.Sscanf(text, "%d.%d.", &p.worker, &p.number); err == nil && n == 2 {
			list = append(list, p)
		}
	}
	slices.SortFunc(list, func(a, b part) int {
		return cmp.Or(cmp.Compare(a.worker, b.worker), cmp.Compare(a.number, b.number))
	})
	return list
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
		page := l.files.take(countName(h.ID, w.ID))
		parts[w.ID] = &membership{member: piece.Member, page: page}
		if page != nil {
			m.store.resume(countName(h.ID, w.ID), lendFile(page))
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
