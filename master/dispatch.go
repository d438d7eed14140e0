package master

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
	"github.com/f72e338e/supervisord/internal/core"
	"github.com/f72e338e/supervisord/internal/dispatch"
	"github.com/f72e338e/supervisord/internal/proto"
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
	near, far, err := fdpass.Pair()
	if err != nil {
		return nil, done, err
	}
	defer func() { _ = near.Close() }()
	end, err := near.Detach()
	if err != nil {
		_ = far.Close()
		return nil, done, err
	}
	theirs, err := far.Detach()
	if err != nil {
		_ = end.Close()
		return nil, done, err
	}
	page, err := newPage()
	if err != nil {
		_ = end.Close()
		_ = theirs.Close()
		return nil, done, err
	}
	ours, err := page.Dup()
	if err != nil {
		ours = nil
	}
	w, _ := m.core.Worker(a.Worker)
	if err := m.dispatcher.Join(uint64(a.Handle), uint64(a.Worker), w.Slot, end, ours, w.ReadyAt != 0 && !w.Barred); err != nil {
		_ = theirs.Close()
		_ = page.Close()
		return nil, done, err
	}
	files = []*fdpass.File{theirs, page}
	return files, func() { fdpass.CloseAll(files) }, nil
}

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
	if m.dispatcher == nil {
		d, err := dispatch.New(dispatch.Options{Scheduling: "batch", Report: m.dispatchReport})
		if err != nil {
			return err
		}
		m.dispatcher = d
	}
	file, err := entry.file.Dup()
	if err != nil {
		return err
	}
	if err := m.dispatcher.Add(uint64(id), file, p); err != nil {
		return err
	}
	entry.dispatched = true
	return nil
}

// dispatchReport is called on the dispatcher's thread.
func (m *Master) dispatchReport(handle, worker uint64, err error) {
	m.log.Warn("dispatch", "handle", handle, "worker", worker, "err", err)
}

// setPolicy changes the policy of a handle that is dispatched already. From
// dispatched to shared nothing is to be done: who has a channel keeps it.
func (m *Master) setPolicy(a core.SetPolicy) {
	if p, ok := dispatch.ParsePolicy(a.Policy); ok && m.dispatcher != nil {
		m.dispatcher.SetPolicy(uint64(a.Handle), p)
	}
}

func (m *Master) admit(a core.Admit) {
	if m.dispatcher != nil {
		m.dispatcher.Admit(uint64(a.Worker), a.Yes)
	}
}

// newPage makes a page that worker and master can map. It cannot be made smaller,
// which would kill whoever reads it (memfd_create(2), F_SEAL_SHRINK).
func newPage() (*fdpass.File, error) {
	fd, err := unix.MemfdCreate("connections", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	f := fdpass.NewFile(fd)
	if err = unix.Ftruncate(fd, int64(unix.Getpagesize())); err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}
