package master

import (
	"fmt"

	"github.com/f72e338e/supervisord/fdpass"
	"github.com/f72e338e/supervisord/internal/core"
	"github.com/f72e338e/supervisord/internal/dispatch"
	"github.com/f72e338e/supervisord/internal/proto"
	"github.com/f72e338e/supervisord/internal/socket"
)

// filesFor returns what goes along with a message, borrowed until done is called:
// for a grant the socket, or where the master dispatches, a channel of the
// worker's own and the page in which it counts its connections.
func (m *Master) filesFor(a core.Send) (files []*fdpass.File, done func(), err error) {
	done = func() {}
	if a.Handle == 0 {
		return nil, done, nil
	}
	g, _ := a.Envelope.Body.(proto.Grant)
	if g.Policy == "" {
		return []*fdpass.File{m.sockets[a.Handle].file}, done, nil
	}
	if err := m.dispatched(a.Handle, g.Policy); err != nil {
		return nil, done, err
	}
	files, err = m.channelFor(a.Worker, a.Handle)
	return files, func() { fdpass.CloseAll(files) }, err
}

// channelFor makes a channel of a handle for a worker, and a page, and returns the
// worker's own of both.
func (m *Master) channelFor(worker proto.WorkerID, handle proto.HandleID) ([]*fdpass.File, error) {
	near, far, err := fdpass.Pair()
	if err != nil {
		return nil, err
	}
	defer func() { _ = near.Close() }()
	end, err := near.Detach()
	if err != nil {
		_ = far.Close()
		return nil, err
	}
	theirs, err := far.Detach()
	if err != nil {
		_ = end.Close()
		return nil, err
	}
	page, err := fdpass.NewPage("connections")
	if err != nil {
		_ = end.Close()
		_ = theirs.Close()
		return nil, err
	}
	ours, err := page.Dup()
	if err != nil {
		ours = nil
	}
	copied, err := theirs.Dup()
	if err != nil {
		fdpass.CloseAll([]*fdpass.File{end, theirs, page, ours})
		return nil, err
	}
	w, _ := m.core.Worker(worker)
	p := m.newPart(handle, worker)
	if err := m.dispatcher.Join(uint64(handle), dispatch.Member{Worker: uint64(worker), Slot: w.Slot, Part: p.number, Limit: m.maxConnections(w),
		Channel: end, Far: copied, Page: ours, Admitted: isServing(w)}); err != nil {
		_ = theirs.Close()
		_ = page.Close()
		return nil, err
	}
	m.keepPart(p)
	return []*fdpass.File{theirs, page}, nil
}

// isServing: the worker may be handed connections.
func isServing(w core.Worker) bool { return w.ReadyAt != 0 && !w.Barred }

// dispatched makes sure that the handle's connections are dispatched.
func (m *Master) dispatched(id proto.HandleID, policy string) error {
	entry := m.sockets[id]
	if entry.dispatched {
		return nil
	}
	p, ok := dispatch.ParsePolicy(policy)
	if !ok {
		return fmt.Errorf("policy %s does not dispatch", policy)
	}
	if err := m.needDispatcher(); err != nil {
		return err
	}
	file, err := entry.file.Dup()
	if err != nil {
		return err
	}
	m.tune(id, true)
	m.dispatcher.Add(uint64(id), p)
	m.dispatcher.SetPolicy(uint64(id), p) // it may be there already, for what is passed on
	if err := m.dispatcher.AddSocket(uint64(id), file); err != nil {
		return err
	}
	entry.dispatched = true
	m.noteSocket(id)
	if g := entry.group; g != nil { // what is under way to its members is dispatched, too
		h, _ := m.core.Handle(id)
		g.do(func() { g.dispatch(h.Spec) })
	}
	return nil
}

func (m *Master) needDispatcher() error {
	if m.dispatcher != nil {
		return nil
	}
	d, err := dispatch.New(dispatch.Options{Scheduling: "batch", Report: m.dispatchReport, Stranded: m.stranded, Left: m.partLeft})
	if err != nil {
		return err
	}
	m.dispatcher = d
	return nil
}

// tune lets connections that the master accepts inherit their options, so that no
// worker has to set them on each. Under other policies they are the worker's affair.
func (m *Master) tune(id proto.HandleID, on bool) {
	h, _ := m.core.Handle(id)
	if proto.IsUnix(h.Key.Network) {
		return
	}
	if err := socket.Tune(m.sockets[id].file.Fd(), h.Spec, on); err != nil {
		m.log.Warn("options of connections not set", "handle", id, "err", err)
	}
}

// maxConnections is how many connections a worker may have, 0 for any number.
func (m *Master) maxConnections(w core.Worker) int64 {
	p, _ := m.core.Pool(w.Pool)
	for _, g := range p.Gens {
		if g.Number == w.Gen {
			return g.Spec.MaxConnections
		}
	}
	return 0
}

// dispatchReport is called on the dispatcher's thread.
func (m *Master) dispatchReport(handle, worker uint64, err error) {
	m.log.Warn("dispatch", "handle", handle, "worker", worker, "err", err)
}

// stranded is called on the dispatcher's thread.
func (m *Master) stranded(handle uint64) {
	go m.call(func() { m.rehouse(proto.HandleID(handle)) })
}

// setPolicy changes the policy of a handle that is dispatched already. From
// dispatched to shared nothing is to be done: who has a channel keeps it.
func (m *Master) setPolicy(a core.SetPolicy) {
	m.setSteering(a)
	if entry := m.sockets[a.Handle]; entry != nil && entry.dispatched {
		m.tune(a.Handle, proto.IsDispatched(a.Policy))
	}
	if p, ok := dispatch.ParsePolicy(a.Policy); ok && m.dispatcher != nil {
		m.dispatcher.SetPolicy(uint64(a.Handle), p)
	}
}

func (m *Master) admit(a core.Admit) {
	m.groups(func(g *group) {
		if a.Yes {
			g.serve(a.Worker)
		} else {
			g.rest(a.Worker)
		}
	})
	if m.dispatcher != nil {
		m.dispatcher.Admit(uint64(a.Worker), a.Yes)
	}
}
