package master

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
	"github.com/f72e338e/supervisord/internal/core"
	"github.com/f72e338e/supervisord/internal/dispatch"
	"github.com/f72e338e/supervisord/internal/proto"
)

// A worker may give a connection that it accepted to another one of the handle. The
// dispatcher hands it over, also where workers accept for themselves: then they get
// channels when the first connection is passed on, and every worker that is granted
// the handle from then on gets one, because a connection may wait for it.

// pass takes what came with a pass to the loop. err is fdpass.ErrFilesLost, or nil.
func (l *workerLink) pass(e proto.Envelope, files []*fdpass.File, err error) {
	pass := e.Body.(proto.Pass)
	switch {
	case err != nil:
		err = refuse(unix.EMFILE, "the master cannot receive the connection (raise its limit of open files)")
	case len(files) == 0:
		err = refuse(unix.EINVAL, "no descriptor came with it")
	}
	ran := l.m.call(func() {
		if err == nil {
			err = l.m.passOn(l.id, pass, files[0])
		}
		var body proto.Message = proto.Passed{}
		if err != nil {
			l.m.log.Debug("connection not passed on", "worker", l.id, "handle", pass.Handle, "err", err)
			body = passError(err)
		}
		if e.ID != 0 {
			l.m.send(core.Send{Worker: l.id, Envelope: proto.Envelope{Re: e.ID, Body: body}})
		}
	})
	if !ran {
		fdpass.CloseAll(files)
	}
}

func passError(err error) proto.Error {
	if errors.Is(err, errNotGreeted) {
		return proto.Error{Code: proto.CodeState, Message: err.Error()}
	}
	return wireError(err)
}

var errNotGreeted = errors.New("say hello first")

// refused is why a connection is not passed on; the worker adds the text of the errno.
type refused struct {
	text string
	err  error
}

func refuse(err error, format string, args ...any) error {
	return &refused{fmt.Sprintf(format, args...), err}
}

func (r *refused) Error() string { return r.text }
func (r *refused) Unwrap() error { return r.err }

// passOn takes a connection. On an error it is closed here, and nobody else has it.
func (m *Master) passOn(worker proto.WorkerID, pass proto.Pass, f *fdpass.File) error {
	id := pass.Handle
	defer func() { _ = f.Close() }()
	w, _ := m.core.Worker(worker)
	entry := m.sockets[id]
	switch {
	case !w.Greeted:
		return errNotGreeted
	case entry == nil || entry.file == nil || !slices.Contains(w.Holds, id):
		return refuse(unix.EBADF, "this worker does not hold handle %d", id)
	}
	h, _ := m.core.Handle(id)
	if err := checkConnection(f.Fd(), h.Key.Network); err != nil {
		return refuse(err, "the descriptor is no connection of handle %d", id)
	}
	if err := m.openChannels(w.ID, id, entry); err != nil {
		return err
	}
	err := m.dispatcher.Pass(uint64(id), dispatch.Passed{From: uint64(worker), Reluctant: pass.Reluctant, Connection: f})
	if errors.Is(err, unix.EAGAIN) {
		return refuse(unix.EAGAIN, "the other workers do not take what is passed on already")
	}
	return err
}

// checkConnection checks that fd may be a connection of a listener, and makes of it
// what a worker expects and the dispatcher can close without waiting.
func checkConnection(fd int, network string) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return unix.EINVAL
	}
	domains, typ := []int{unix.AF_INET, unix.AF_INET6}, unix.SOCK_STREAM
	switch {
	case proto.IsDatagram(network):
		return unix.EINVAL
	case network == "unixpacket":
		domains, typ = []int{unix.AF_UNIX}, unix.SOCK_SEQPACKET
	case proto.IsUnix(network):
		domains = []int{unix.AF_UNIX}
	}
	domain, err1 := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	kind, err2 := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	listens, err3 := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	if kind != typ || listens != 0 || !slices.Contains(domains, domain) {
		return unix.EINVAL
	}
	// socket(7): with SO_LINGER close(2) would wait for the peer.
	if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{}); err != nil {
		return err
	}
	return unix.SetNonblock(fd, true)
}

// openChannels gives the workers that hold a handle a channel where they have none.
// from passes connections on, 0 is nobody. Errors: ENOENT when no worker but from
// serves there, those of making a dispatcher.
func (m *Master) openChannels(from proto.WorkerID, id proto.HandleID, entry *listening) error {
	var joined []uint64
	if m.dispatcher != nil {
		joined = m.dispatcher.Joined(uint64(id))
	}
	var without []proto.WorkerID
	someone := false
	for other := range m.workers {
		w, ok := m.core.Worker(other)
		if !ok || other == from || !slices.Contains(w.Holds, id) {
			continue
		}
		has := slices.Contains(joined, uint64(other))
		if !has && !takesPassed(w) {
			continue
		}
		someone = someone || isServing(w)
		if !has {
			without = append(without, other)
		}
	}
	if !someone {
		return refuse(unix.ENOENT, "no other ready worker listens on handle %d", id)
	}
	if err := m.needDispatcher(); err != nil {
		return err
	}
	if !entry.dispatched && !entry.passes {
		m.dispatcher.Add(uint64(id), dispatch.LeastConnections)
	}
	entry.passes = true
	m.noteSocket(id)
	for _, w := range without {
		m.offerChannel(w, id, entry)
	}
	return nil
}

// rehouse finds workers for connections that were taken back from one where nobody
// has a channel any more: the policy has changed since, and the others accept for
// themselves. Who asks for the handle later gets a channel too.
func (m *Master) rehouse(id proto.HandleID) {
	entry := m.sockets[id]
	if entry == nil {
		return
	}
	if err := m.openChannels(0, id, entry); err != nil {
		entry.passes = true
		m.noteSocket(id)
		m.log.Debug("connections wait for a worker", "handle", id, "err", err)
	}
}

func takesPassed(w core.Worker) bool { return slices.Contains(w.Features, proto.FeaturePass) }

// offerPassed follows a grant: what is passed on may have been waiting for somebody.
func (m *Master) offerPassed(a core.Send) {
	g, ok := a.Envelope.Body.(proto.Grant)
	if !ok || g.Policy != "" && g.Sockets == 0 { // the grant was a channel
		return
	}
	w, _ := m.core.Worker(a.Worker)
	if entry := m.sockets[a.Handle]; entry != nil && entry.passes && takesPassed(w) {
		m.offerChannel(a.Worker, a.Handle, entry)
	}
}

// offerChannel sends a worker a channel, behind its grant. The group of a handle
// sends its grants itself.
func (m *Master) offerChannel(worker proto.WorkerID, id proto.HandleID, entry *listening) {
	g := entry.group
	if g == nil {
		m.sendChannel(worker, id)
		return
	}
	g.do(func() { m.call(func() { m.sendChannel(worker, id) }) })
}

// sendChannel makes and sends it. Without one, for a lack of descriptors, the worker
// gets nothing that was passed on until the next that is.
func (m *Master) sendChannel(worker proto.WorkerID, id proto.HandleID) {
	p, w := m.workers[worker], core.Worker{}
	if p != nil {
		w, _ = m.core.Worker(worker)
	}
	if p == nil || p.link == nil || !slices.Contains(w.Holds, id) {
		return // it has gone, or given the handle back
	}
	if slices.Contains(m.dispatcher.Joined(uint64(id)), uint64(worker)) {
		return // it was offered one meanwhile
	}
	files, err := m.channelFor(worker, id)
	if err != nil {
		m.log.Warn("a worker gets no connections that others passed on", "worker", worker, "handle", id, "err", err)
		return
	}
	defer fdpass.CloseAll(files)
	data, err := proto.Encode(proto.Envelope{Body: proto.Channel{Handle: id}})
	if err == nil {
		err = p.link.send(data, files...)
	}
	if err != nil {
		m.later = append(m.later, core.LinkBroken{Worker: worker, Cause: "does not read its link: " + err.Error()})
	}
}
