package master

import (
	"encoding/json"
	"errors"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
	"github.com/f72e338e/supervisord/internal/core"
	"github.com/f72e338e/supervisord/internal/proto"
	"github.com/f72e338e/supervisord/internal/socket"
	"github.com/f72e338e/supervisord/internal/socket/owner"
	"github.com/f72e338e/supervisord/systemd"
)

// listening is a handle's socket. It has no file while it is being bound.
type listening struct {
	file       *fdpass.File
	bound      proto.Bound
	dispatched bool // the dispatcher has a descriptor of it
	passes     bool // connections are passed on: its workers have channels beside their own way
	group      *group
	tls        json.RawMessage // what the first Node worker said that serves TLS there
	seen       core.Time       // when it was last found in order
}

// bind makes a socket, or takes an inherited one: named so, or bound to the
// address that is asked for.
func (m *Master) bind(a core.Bind) {
	entry := &listening{}
	m.sockets[a.Handle] = entry
	if file, ok := m.takeInherited(a.Spec); ok || a.Spec.Inherit != "" {
		m.adopt(a, file)
		return
	}
	m.pumps.Add(1)
	go func() {
		defer m.pumps.Done()
		spec := a.Spec
		spec.ReusePort = a.Policy == proto.PolicyReusePort
		file, bound, err := socket.Bind(spec)
		if err != nil {
			err = explain(err, a.Spec)
		}
		if !m.call(func() { m.bindDone(a.Handle, file, bound, err) }) {
			_ = file.Close()
		}
	}()
}

func (m *Master) bindDone(id proto.HandleID, file *fdpass.File, bound proto.Bound, err error) {
	if err != nil {
		delete(m.sockets, id)
		m.step(core.BindFailed{Handle: id, Error: wireError(err)})
		return
	}
	m.sockets[id].file, m.sockets[id].bound = file, bound
	m.store.put(handleName(id), lendFile(file))
	h, _ := m.core.Handle(id)
	m.watchSocket(id, 0, h.Key.Network, file)
	m.step(core.BoundHandle{Handle: id, Bound: bound})
}

// adopt takes an inherited socket for a handle. With no file the socket was asked
// for by a name that systemd did not pass.
func (m *Master) adopt(a core.Bind, file *fdpass.File) {
	if file == nil {
		delete(m.sockets, a.Handle)
		m.later = append(m.later, core.BindFailed{Handle: a.Handle, Error: wireError(&socket.Error{
			Op: "take the socket " + a.Spec.Inherit + " from systemd for", Network: a.Spec.Network, Err: syscall.ENOENT,
			Hint: "no socket of this name was passed; FileDescriptorName= in the .socket unit must say so",
		})})
		return
	}
	bound, err := socket.Adopt(file, a.Spec)
	if err == nil {
		// systemd passes blocking sockets; workers need the other kind. Once, here,
		// before anybody else holds the open file.
		err = unix.SetNonblock(file.Fd(), true)
	}
	if err != nil {
		_ = file.Close()
		delete(m.sockets, a.Handle)
		m.later = append(m.later, core.BindFailed{Handle: a.Handle, Error: wireError(err)})
		return
	}
	m.sockets[a.Handle].file, m.sockets[a.Handle].bound = file, bound
	m.store.put(handleName(a.Handle), lendFile(file))
	m.watchSocket(a.Handle, 0, a.Spec.Network, file)
	m.later = append(m.later, core.BoundHandle{Handle: a.Handle, Bound: bound})
}

// takeInherited takes the socket that fits out of those that systemd passed.
func (m *Master) takeInherited(spec proto.SocketSpec) (*fdpass.File, bool) {
	fits := func(s systemd.Socket) bool {
		if spec.Inherit != "" {
			return s.Name == spec.Inherit
		}
		return socket.Matches(s.File.Fd(), spec)
	}
	i := slices.IndexFunc(m.inherited, fits)
	if i < 0 {
		return nil, false
	}
	file := m.inherited[i].File
	m.inherited = slices.Delete(m.inherited, i, i+1)
	return file, true
}

// relisten changes the backlog of an open socket.
func (m *Master) relisten(a core.Relisten) {
	entry := m.sockets[a.Handle]
	n, err := socket.Relisten(entry.file.Fd(), a.Backlog)
	if err != nil {
		m.log.Warn("backlog not changed", "handle", a.Handle, "backlog", a.Backlog, "err", err)
		return
	}
	entry.bound.Backlog = n
	if g := entry.group; g != nil {
		g.do(func() { g.relisten(a.Backlog) })
	}
	m.later = append(m.later, core.BoundHandle{Handle: a.Handle, Bound: entry.bound})
}

func (m *Master) release(id proto.HandleID) {
	entry := m.sockets[id]
	delete(m.sockets, id)
	m.store.dropAll(handleName(id), keptName("member", id), keptName("part", id), keptName("count", id))
	m.noteSocket(id)
	if entry.dispatched || entry.passes {
		m.dispatcher.Remove(uint64(id))
	}
	entry.group.close()
	if entry.bound.Inode != 0 && !entry.bound.Inherited {
		if err := socket.Unlink(entry.bound); err != nil {
			m.log.Warn("path of a socket not removed", "handle", id, "addr", entry.bound.Address, "err", err)
		}
	}
	m.watch.remove(entry.file)
	_ = entry.file.Close()
}

// explain adds who holds the address, where that can be found.
func explain(err error, spec proto.SocketSpec) error {
	var e *socket.Error
	if !errors.As(err, &e) || !errors.Is(err, syscall.EADDRINUSE) {
		return err
	}
	if who := owner.Find(spec.Network, spec.Address, spec.Port); who != "" {
		copied := *e
		copied.Hint = "held by " + who
		return &copied
	}
	return err
}

// wireError is what a worker is told.
func wireError(err error) proto.Error {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return proto.Error{Code: "EIO", Errno: int(syscall.EIO), Message: err.Error()}
	}
	return proto.Error{Code: unix.ErrnoName(errno), Errno: int(errno), Message: err.Error()}
}
