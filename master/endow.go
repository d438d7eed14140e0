package master

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
	"github.com/f72e338e/supervisord/internal/core"
	"github.com/f72e338e/supervisord/internal/proto"
	"github.com/f72e338e/supervisord/systemd"
)

// endow gives a worker what systemd gives a service: its sockets (sd_listen_fds(3)), a
// notify socket and, where one is configured, a watchdog.
func (m *Master) endow(a core.Spawn, r *launch, p *process) (g gift, err error) {
	if p.notify, err = m.newNotifyLink(a.Worker, r.pool.UID); err != nil {
		return gift{}, fmt.Errorf("notify socket: %w", err)
	}
	if g, err = m.sockets3(a, r); err != nil {
		p.notify.close()
		return gift{}, err
	}
	g.env = append(g.env, systemd.NotifyEnvironment(p.notify.receiver.Path()))
	if r.pool.Heartbeat > 0 {
		g.env = append(g.env, systemd.WatchdogEnvironment(r.pool.Heartbeat))
	}
	return g, nil
}

// sockets3 are those that the worker finds from 3 on.
func (m *Master) sockets3(a core.Spawn, r *launch) (g gift, err error) {
	var names []string
	w, _ := m.core.Worker(a.Worker)
	p, _ := m.core.Pool(w.Pool)
	for _, id := range a.Handles {
		m.later = append(m.later, m.look(id)...)
		if r.pool.NonBlocking {
			m.block(id)
		} else {
			m.unblock(id)
		}
		file, err := m.sockets[id].file.Dup()
		if err != nil {
			g.close()
			return gift{}, err
		}
		g.files = append(g.files, file)
		names = append(names, nameIn(p, w.Gen, id))
	}
	g.env = []string{fmt.Sprintf("LISTEN_FDS=%d", len(g.files)), "LISTEN_FDNAMES=" + strings.Join(names, ":")}
	g.listenPID = true
	return g, nil
}

// nameIn is what a generation calls a listener.
func nameIn(p core.Pool, gen uint64, id proto.HandleID) string {
	for _, g := range p.Gens {
		if g.Number != gen {
			continue
		}
		for i, h := range g.Handles {
			if h == id && i < len(g.Spec.Listeners) {
				return g.Spec.Listeners[i]
			}
		}
	}
	return "unknown" // as sd_listen_fds_with_names(3) says
}

// waits reports whether workers of a generation may be given a blocking socket.
func (m *Master) waits(s core.PoolSpec) bool {
	r := m.launches.get(s.Launch)
	return s.Protocol == core.ProtocolSystemd && (r == nil || !r.pool.NonBlocking)
}

// unblock gives a socket the flags that systemd's sockets have, where all who may hold it
// expect that: O_NONBLOCK belongs to the open file, so all have it or none, and a plain
// program waits in accept(2). Who wants the flag sets it, and nobody objects.
func (m *Master) unblock(id proto.HandleID) {
	entry := m.sockets[id]
	if entry.bound.Blocking || !m.core.OnlyFor(id, m.waits) {
		return
	}
	entry.bound.Blocking = true
	m.noteSocket(id)
	m.setNonblock(entry.file, id, false)
}

// block undoes unblock, for a worker that was made for the flag.
func (m *Master) block(id proto.HandleID) {
	entry := m.sockets[id]
	if entry == nil || !entry.bound.Blocking {
		return
	}
	entry.bound.Blocking = false
	m.noteSocket(id)
	m.setNonblock(entry.file, id, true)
}

func (m *Master) setNonblock(f *fdpass.File, id proto.HandleID, on bool) {
	if err := unix.SetNonblock(f.Fd(), on); err != nil {
		m.log.Warn("flags of a socket not set", "handle", id, "err", err)
	}
}
