package dispatch

import (
	"math"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/internal/proto"
)

// filled lets a member say that it is full: what it has not read goes to others.
func (w *world) filled(arg int) {
	if m := w.player(arg); m != nil {
		m.full = true
		w.say(m, proto.Full)
	}
}

// late lets all be late who have not read.
func (w *world) late(int) { w.d.do(w.d.lapse) }

func (w *world) room(arg int) {
	if m := w.player(arg); m != nil {
		m.full = false
		w.say(m, proto.Room)
	}
}

// garbage: bit 0-1 the member, the rest the length, and what is in it. The first
// byte of eight is chosen so that it says nothing.
func (w *world) garbage(arg int) {
	m := w.player(arg & 3)
	if m == nil {
		return
	}
	b := make([]byte, arg>>2)
	for i := range b {
		b[i] = byte(arg * (i + 3))
	}
	if len(b) == proto.HandoverSize {
		b[0], b[7] = 9, 9
	}
	w.breaks(m)
	w.send(m, b, nil)
}

// strange is a message that is one from the other side, or nearly one: bit 0-1 the
// member, then which.
func (w *world) strange(arg int) {
	m := w.player(arg & 3)
	if m == nil {
		return
	}
	w.breaks(m)
	b := make([]byte, proto.HandoverSize)
	switch arg >> 2 % 4 {
	case 0:
		proto.Handover{Count: 1}.Put(b)
	case 1:
		proto.Handover{}.Put(b)
	case 2:
		proto.Full.Put(b)
		b[4] = 1
	default: // to write no more is to say that one leaves
		_ = unix.Shutdown(m.fd, unix.SHUT_WR)
		return
	}
	w.send(m, b, nil)
}

// breaks notes that a member does not keep to the protocol: it loses its channel,
// and what it has not read.
func (w *world) breaks(m *player) { m.lawful = false }

// files: bit 0-1 the member, then how many descriptors go along with a Room, where
// there are none to be.
func (w *world) files(arg int) {
	m := w.player(arg & 3)
	if m == nil {
		return
	}
	fds := make([]int, arg>>2%8+1)
	for i := range fds {
		fds[i] = m.fd // its own channel, of all things
		if i%2 == 1 && len(w.clients) > 0 && w.clients[0].fd >= 0 {
			fds[i] = w.clients[0].fd
		}
	}
	b := make([]byte, proto.HandoverSize)
	proto.Room.Put(b)
	w.breaks(m)
	w.send(m, b, unix.UnixRights(fds...))
}

// die ends a member as a kill -9 does, and nobody has heard of it yet.
func (w *world) die(arg int) {
	if m := w.player(arg); m != nil {
		w.let(m)
		m.dead = true
	}
}

// rush lets clients come, then a member leave, before the dispatcher sees either.
// Bit 0: the member reads what it has first.
func (w *world) rush(arg int) {
	m := w.player(arg >> 1)
	if m == nil {
		return
	}
	held, gate, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		w.d.do(func() { close(held); <-gate })
	}()
	<-held
	for range 3 {
		w.connect(int(m.at.id) - 1)
	}
	if arg&1 != 0 {
		passing := m.passing
		m.passing = false // nobody could take it
		w.receive(m)
		m.passing = passing
	}
	close(gate)
	<-done
	w.gone(m.worker, m.at.id)
}

// leave ends a member, or one that is dead already, and the dispatcher hears of it.
func (w *world) leave(arg int) {
	var list []*player
	for _, m := range w.members {
		if m.fd >= 0 {
			list = append(list, m)
		}
	}
	if len(list) == 0 {
		return
	}
	m := list[arg%64%len(list)]
	handle := uint64(0)
	if arg&64 != 0 {
		handle = m.at.id
	}
	w.gone(m.worker, handle)
}

// gone ends a worker's part in a handle, 0 for all.
func (w *world) gone(worker, handle uint64) {
	for _, m := range w.members {
		if m.worker == worker && (handle == 0 || handle == m.at.id) {
			w.close(m)
		}
	}
	w.d.Leave(handle, worker)
}

// close closes what a member has.
func (w *world) close(m *player) {
	if m.fd < 0 {
		return
	}
	w.let(m)
	_ = unix.Close(m.fd)
	m.fd = -1
}

// let closes it but for the channel, which says whether something is in it.
func (w *world) let(m *player) {
	for _, h := range m.owned {
		_ = unix.Close(h.fd)
	}
	if m.page != nil {
		_ = unix.Munmap(m.page)
	}
	m.owned, m.page = nil, nil
}

// admit: bit 0 whether, the rest whom.
func (w *world) admit(arg int) {
	m := w.player(arg >> 1)
	if m == nil {
		return
	}
	worker, yes := m.worker, arg&1 != 0
	w.d.Admit(worker, yes)
	for _, m := range w.members {
		if m.worker == worker && m.fd >= 0 {
			w.settle() // or it goes to another by now
			m.leftover = m.leftover || readable(m.fd)
			m.admitted = yes
		}
	}
}

func (w *world) policy(arg int) {
	w.d.SetPolicy(w.place(arg).id, Policy(arg>>1%5)) // two of them are none
}

// writePage writes a count that no worker has.
func (w *world) writePage(arg int) {
	if m := w.player(arg); m != nil && m.limit == 0 {
		m.count([]int64{0, 1, -1, math.MinInt64, math.MaxInt64, 1 << 40, 1<<40 + 1, -1 << 40}[arg>>2%8])
	}
}

// hangUp ends a client from its own side.
func (w *world) hangUp(arg int) {
	if len(w.clients) == 0 {
		return
	}
	if c := w.clients[arg%len(w.clients)]; c.fd >= 0 {
		if w.tcp && c.owner != nil {
			_ = unix.SetsockoptLinger(c.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}) // no TIME_WAIT
		}
		_ = unix.Close(c.fd)
		c.fd = -1
	}
}

// remove takes the second handle away, so that there is always one.
func (w *world) remove(int) {
	w.handles[1].removed = true
	w.d.Remove(w.handles[1].id)
}

func readable(fd int) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(p, 0)
	return err == nil && n == 1 && p[0].Revents&unix.POLLIN != 0
}
