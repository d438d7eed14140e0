package dispatch

import (
	"math"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/internal/proto"
)

// accept answers for everything that a member has read.
func (w *world) accept(arg int) {
	if m := w.player(arg); m != nil {
		w.take(m, len(m.read))
	}
}

// refuse gives everything back that a member has read.
func (w *world) refuse(arg int) {
	if m := w.player(arg); m != nil {
		w.giveBack(m, len(m.read))
	}
}

// partly answers for some of it: bit 0-1 the member, bit 2 refused, then how many.
func (w *world) partly(arg int) {
	m := w.player(arg & 3)
	if m == nil || len(m.read) == 0 {
		return
	}
	n := arg>>3%len(m.read) + 1
	if arg&4 != 0 {
		w.giveBack(m, n)
		return
	}
	w.take(m, n)
}

// take accepts the first n. The program sees them once that was said.
func (w *world) take(m *player, n int) {
	if n == 0 {
		return
	}
	ok := w.say(m, proto.Verdict{First: m.first, Count: uint16(n), What: proto.Accepted}) && m.lawful
	for _, h := range m.read[:n] {
		if !ok { // the master hands them to another
			_ = unix.Close(h.fd)
			continue
		}
		if h.c.owner != nil {
			w.t.Fatalf("client %d has two owners: %d and %d", h.c.n, h.c.owner.tag, m.tag)
		}
		h.c.owner = m
		var b [1]byte
		_, _ = unix.Read(h.fd, b[:]) // what is closed unread ends in a reset
		_, _ = unix.Write(h.fd, []byte{m.tag})
		m.owned = append(m.owned, h)
	}
	m.read = m.read[n:]
	m.first += uint32(n)
}

func (w *world) giveBack(m *player, n int) {
	if n == 0 {
		return
	}
	for _, h := range m.read[:n] {
		_ = unix.Close(h.fd)
	}
	m.full = true
	w.say(m, proto.Verdict{First: m.first, Count: uint16(n), What: proto.Refused})
	m.read = m.read[n:]
	m.first += uint32(n)
}

func (w *world) room(arg int) {
	if m := w.player(arg); m != nil {
		m.full = false
		w.say(m, proto.Verdict{First: uint32(arg), Count: uint16(arg), What: proto.Room})
	}
}

// garbage: bit 0-1 the member, the rest the length, and what is in it. The first
// byte of eight is chosen so that no verdict comes of it.
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
		b[6], b[7] = 9, 9
	}
	w.breaks(m)
	w.send(m, b, nil)
}

// strange is a well-formed verdict that does not fit: bit 0-1 the member, then
// which.
func (w *world) strange(arg int) {
	m := w.player(arg & 3)
	if m == nil {
		return
	}
	v := proto.Verdict{First: m.first, Count: uint16(len(m.read) + 1), What: proto.Accepted}
	switch arg >> 2 % 4 {
	case 0:
		v.First, v.Count = m.first+1, 1
	case 1:
		v.Count = proto.MaxHandover
	case 2:
		v.First, v.Count, v.What = m.first-1, 1, proto.Refused
	}
	if v.First == m.first && int(v.Count) <= w.batch { // it may be for what waits in its channel, unread
		v.Count = proto.MaxHandover
	}
	w.breaks(m)
	w.say(m, v)
}

// breaks notes that a member does not keep to the protocol: it loses its channel,
// and what it has no verdict on.
func (w *world) breaks(m *player) {
	m.lawful, m.leftover = false, true
}

// files: bit 0-1 the member, then how many descriptors go along with a Room.
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
	proto.Verdict{What: proto.Room}.Put(b)
	m.full = false
	w.send(m, b, unix.UnixRights(fds...))
}

// die ends a member as a kill -9 does: its descriptors are closed.
func (w *world) die(arg int) {
	if m := w.player(arg); m != nil {
		w.close(m)
	}
}

// rush lets clients come, then a member die, before the dispatcher sees either.
// Bit 0: the member answers for what it has read first.
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
	defer func() { close(gate); <-done }()
	for range 3 {
		w.connect(int(m.at.id) - 1)
	}
	if arg&1 != 0 {
		w.take(m, len(m.read))
	}
	w.close(m)
}

// leave is die, and the master learns of it.
func (w *world) leave(arg int) {
	m := w.player(arg)
	if m == nil {
		return
	}
	gone := m.worker
	for _, m := range w.members {
		if m.worker == gone {
			w.close(m)
		}
	}
	handle := uint64(0)
	if arg&64 != 0 {
		handle = m.at.id
	}
	w.d.Leave(handle, gone)
}

func (w *world) close(m *player) {
	if m.fd < 0 {
		return
	}
	_ = unix.Close(m.fd)
	for _, h := range append(m.read, m.owned...) {
		_ = unix.Close(h.fd)
	}
	if m.page != nil {
		_ = unix.Munmap(m.page)
	}
	m.fd, m.read, m.owned, m.page = -1, nil, nil, nil
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
	if m := w.player(arg); m != nil {
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
