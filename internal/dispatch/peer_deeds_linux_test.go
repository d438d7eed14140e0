package dispatch

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
)

// hearOne lets a worker read a line.
func (w *peerWorld) hearOne(arg int) {
	if m := w.mate(arg); m != nil {
		w.hears(m)
	}
}

// acknowledge: bit 0-2 who, bit 3-5 how many.
func (w *peerWorld) acknowledge(arg int) {
	if m := w.mate(arg & 7); m != nil {
		n := min(len(m.unsaid), arg>>3&7+1)
		if n > 0 {
			m.unsaid = m.unsaid[n:]
			w.say(m, nil, slices.Repeat([]string{lineAck}, n)...)
		}
	}
}

// miss lets a worker say that a descriptor has not come.
func (w *peerWorld) miss(arg int) {
	m := w.mate(arg)
	if m == nil || len(m.unsaid) == 0 {
		return
	}
	g := m.unsaid[0]
	m.unsaid = m.unsaid[1:]
	if g.at == nil {
		if m.misses = m.misses + 1; m.misses >= maxTries { // of all letters, at the most
			m.lawful = false
		}
	} else if i := slices.Index(m.offers, g); i >= 0 {
		m.offers = slices.Delete(m.offers, i, i+1)
		_ = unix.Close(g.fd)
	}
	w.say(m, nil, lineNack)
}

// accept: bit 0-2 who, bit 3-5 which, bit 6 that it has not acknowledged.
func (w *peerWorld) accept(arg int) {
	if m := w.mate(arg & 7); m != nil && len(m.offers) > 0 {
		w.answer(m, m.offers[arg>>3&7%len(m.offers)], true, arg&64 == 0)
	}
}

// refuse is like accept.
func (w *peerWorld) refuse(arg int) {
	if m := w.mate(arg & 7); m != nil && len(m.offers) > 0 {
		w.answer(m, m.offers[arg>>3&7%len(m.offers)], false, arg&64 == 0)
	}
}

// serveAll lets a worker read what there is, and accept it.
func (w *peerWorld) serveAll(arg int) {
	if m := w.mate(arg); m != nil {
		w.serves(m)
	}
}

func (w *peerWorld) serves(m *mate) (some bool) {
	for w.hears(m) {
		some = true
	}
	for len(m.offers) > 0 {
		w.answer(m, m.offers[0], true, true)
	}
	if n := len(m.unsaid); n > 0 {
		m.unsaid = nil
		w.say(m, nil, slices.Repeat([]string{lineAck}, n)...)
	}
	return some
}

// tell: bit 0-2 whom, bit 3 with a descriptor, bit 4 a long line.
func (w *peerWorld) tell(arg int) {
	m := w.mate(arg & 7)
	if m == nil {
		return
	}
	m.told++
	if arg&8 == 0 {
		w.must(w.d.Tell(m.worker, []byte(fmt.Sprintf("\"told %d\"\n", m.told)), nil))
		return
	}
	file, err := fdpass.NewPage("told")
	w.must(err)
	line := fmt.Sprintf(`{"cmd":"NODE_HANDLE","type":"net.Native","msg":%d,"x":"%s"}`, m.told, strings.Repeat("x", arg>>4&1*8000))
	w.must(w.d.Tell(m.worker, []byte(line+"\n"), file))
}

// descriptor: bit 0-2 who, bit 3 that one goes along, of all things its own channel.
func (w *peerWorld) descriptor(arg int) {
	m := w.mate(arg & 7)
	if m == nil {
		return
	}
	if arg&8 != 0 {
		w.say(m, unix.UnixRights(m.fd), lineHandle)
	} else {
		w.say(m, nil, lineHandle)
	}
}

// talk: bit 0-2 who, bit 3 half a line.
func (w *peerWorld) talk(arg int) {
	m := w.mate(arg & 7)
	switch {
	case m == nil:
	case arg&8 == 0:
		w.say(m, nil, `"something"`, `{"cmd":"NODE_CLUSTER","act":"online","seq":0}`)
	case !m.half:
		_, err := unix.Write(m.fd, []byte(`"hal`))
		w.must(err)
		m.half = true
	}
}

// lie: bit 0-2 who, then which.
func (w *peerWorld) lie(arg int) {
	m := w.mate(arg & 7)
	if m == nil {
		return
	}
	m.lawful = false
	switch arg >> 3 % 5 {
	case 0:
		w.say(m, nil, `{"cmd":"NODE_HANDLE`)
	case 1:
		w.say(m, nil, `{"cmd":"NODE_CLUSTER","ack":"x","accepted":true,"seq":1}`)
	case 2:
		w.say(m, nil, slices.Repeat([]string{offer{seq: 1 << 40}.answer(true)}, 200)...)
	case 3:
		w.say(m, unix.UnixRights(slices.Repeat([]int{m.fd}, 100)...), `"x"`, `{"cmd":"NODE_HANDLE`)
	default:
		w.say(m, nil, slices.Repeat([]string{lineAck}, 200)...)
		m.unsaid = nil
	}
}

// pauses says what Hear wants: bit 0-2 who, bit 3 whether.
func (w *peerWorld) pauses(arg int) {
	if m := w.mate(arg & 7); m != nil {
		m.mu.Lock()
		m.rest = arg&8 != 0
		m.mu.Unlock()
	}
}

func (w *peerWorld) resume(arg int) {
	if len(w.peers) > 0 {
		w.d.Resume(w.peers[arg%len(w.peers)].worker)
	}
}

// passAway: bit 0-2 who of all, bit 3 that its channel is still open when the
// dispatcher hears of it, bit 4 that it hears by the end of the channel alone.
func (w *peerWorld) passAway(arg int) {
	if len(w.peers) == 0 {
		return
	}
	m := w.peers[arg&7%len(w.peers)]
	if arg&8 == 0 {
		w.shut(m)
	}
	if arg&16 == 0 {
		w.d.RemovePeer(m.worker)
	}
	w.shut(m)
}

// shutDown: bit 0-2 who, bit 3 which direction.
func (w *peerWorld) shutDown(arg int) {
	m := w.mate(arg & 7)
	switch {
	case m == nil:
	case arg&8 == 0:
		_ = unix.Shutdown(m.fd, unix.SHUT_RD)
		m.deaf = true
	default:
		m.mute = true
		_ = unix.Shutdown(m.fd, unix.SHUT_WR)
	}
}

// giveBack: bit 0-2 who, bit 3 the handle.
func (w *peerWorld) giveBack(arg int) {
	if m := w.mate(arg & 7); m != nil {
		w.d.Leave(w.place(arg>>3).id, m.worker)
	}
}

// comeIn: bit 0-2 who, bit 3 the handle, bit 4-5 the slot.
func (w *peerWorld) comeIn(arg int) {
	m := w.mate(arg & 7)
	if m == nil {
		return
	}
	n := 0
	p := w.place(arg >> 3)
	w.d.do(func() {
		if h := w.d.handles[p.id]; h != nil {
			n = len(h.members)
		}
	})
	if n < maxMembers {
		w.enter(m, p, arg>>4&3)
	}
}

// allow: bit 0-2 whom, bit 3 whether.
func (w *peerWorld) allow(arg int) {
	if m := w.mate(arg & 7); m != nil {
		m.admitted = arg&8 != 0
		w.d.Admit(m.worker, m.admitted)
	}
}

// passTime lets what waits for time happen.
func (w *peerWorld) passTime(int) {
	w.d.do(func() {
		for _, h := range w.d.handles {
			for _, m := range h.members {
				m.until = time.Time{}
			}
		}
		if w.d.failed {
			w.d.failed = false
			w.d.pumpAll()
		}
	})
}
