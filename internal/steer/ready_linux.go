package steer

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
)

// absurd is how far a worker's count may be from what it was sent before it is
// taken for nonsense. A queue is at most somaxconn, and few handshakes fail.
const absurd = 1 << 20

// Serve makes a member ready. From now on its connections are counted by page, of
// which the group keeps a mapping: the caller may close the file. The load begins
// with what the page says is open (nothing, for a new worker) and what waits in the
// socket's queue, whatever the predecessor had.
//
// A nil page means that the worker counts nothing. While one such is ready, loads
// say nothing, and the ready members take turns.
//
// A page that is not of NewPage of this group is good too, as when a worker outlived
// its master; that waits for the kernel as NewPage does.
//
// After an error other than ErrNoMember the member is ready, as with a nil page.
func (g *Group) Serve(id int, file *fdpass.File) error {
	m, err := g.at(id)
	if err != nil {
		return err
	}
	var p *page
	if file != nil {
		p, err = mapPage(file)
	}
	slot := noPage
	if p != nil && g.k != nil {
		if slot, err = g.k.slotOf(file); err != nil {
			p.close()
			p = nil
		}
	}
	m.page.close()
	m.page, m.ready, m.missing = p, true, 0
	if g.k != nil {
		g.k.serve(id, slot, m)
		g.k.setBlind(g.blind())
	}
	if e := g.apply(); err == nil {
		err = e
	}
	if err != nil {
		return fmt.Errorf("member %d: %w", id, err)
	}
	return nil
}

// blind says whether somebody is ready who does not count.
func (g *Group) blind() bool {
	for _, m := range g.members {
		if m != nil && m.ready && m.page == nil {
			return true
		}
	}
	return false
}

// Rest makes a member not ready: it gets no new connections while another is ready.
// When none is, the kernel's hash decides among all. What is in its queue stays.
func (g *Group) Rest(id int) error {
	m, err := g.at(id)
	if err != nil {
		return err
	}
	m.ready = false
	if g.k != nil {
		g.k.setReady(id, false)
		g.k.setBlind(g.blind())
	}
	return g.apply()
}

// Only sends everything to one member, whatever is ready: for a listener whose
// connections are no longer spread by the kernel. Only(-1) undoes it.
func (g *Group) Only(id int) error {
	if id != -1 {
		if _, err := g.at(id); err != nil {
			return err
		}
	}
	g.only = id
	if g.k != nil {
		g.k.setOnly(id)
	}
	return g.apply()
}

// Load returns by how many connections a member is judged: those its worker has
// open, and in Steered mode those that are on the way to it. It is not known when
// the worker has no page, or nonsense in it.
func (g *Group) Load(id int) (n int64, known bool) {
	m, err := g.at(id)
	if err != nil || m.page == nil {
		return 0, false
	}
	accepted, closed := m.page.read()
	if n = int64(accepted - closed); n < 0 {
		return 0, false
	}
	if g.k == nil {
		return n, true
	}
	sent := g.k.sent(id)
	if int64(sent-accepted) < -absurd {
		return 0, false
	}
	return max(0, int64(sent-closed)), true
}

// Settle takes out of the loads what was picked and has come to nothing, or was
// accepted by somebody else: the picks that are neither accepted nor in the accept
// queue, if there are as many of them at two calls in a row. So the time between
// two calls has to be longer than a handshake takes: call it every 5 to 10 s while
// there are connections. In Hash mode it does nothing.
//
// tcp(7): of a listening socket tcpi_unacked is the length of the accept queue.
func (g *Group) Settle() {
	if g.k == nil {
		return
	}
	for id, m := range g.members {
		if m == nil || m.page == nil {
			continue
		}
		accepted, _ := m.page.read()
		missing := int64(g.k.sent(id)-accepted) - m.queue()
		drift := int64(0)
		switch {
		case missing > absurd || missing < -absurd:
		case missing > 0 && m.missing > 0:
			drift = min(missing, m.missing)
		case missing < 0 && m.missing < 0:
			drift = max(missing, m.missing)
		}
		g.k.forgive(id, drift)
		m.missing = missing - drift
	}
}

// queue returns how many connections wait in the member's accept queue.
func (m *member) queue() int64 {
	fd := m.socket.Fd()
	if fd < 0 {
		return 0
	}
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil || info.State != tcpListen {
		return 0
	}
	return int64(info.Unacked)
}

const tcpListen = 10 // TCP_LISTEN, include/net/tcp_states.h
