package dispatch

import (
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// check looks at the dispatcher between two operations.
func (w *peerWorld) check() {
	w.ops++
	w.settle()
	owned := map[uint64]uint64{}
	for _, c := range w.clients {
		if c.owner != nil {
			owned[c.at.id]++
		}
	}
	unheard, liars := uint64(0), uint64(0)
	for _, m := range w.peers {
		if !m.lawful {
			liars++
		}
		if m.ends > 1 {
			w.t.Errorf("%v", m)
		}
	}
	w.d.do(func() {
		for _, p := range w.d.peers {
			if p.paused {
				unheard += uint64(len(w.clients))
			}
		}
		resting := false
		for id, h := range w.d.handles {
			inside := len(h.waiting)
			for _, m := range h.members {
				m.hasRead()
				inside += len(m.out) + len(m.batch)
				resting = resting || m.peer != nil && m.full
				if m.peer != nil && m.leaving && len(m.out) == 0 {
					w.t.Errorf("handle %d: worker %d has left and answered, and is there", id, m.worker)
				}
			}
			accepted, handed := h.stats.Accepted.Load(), h.stats.Handed.Load()
			if accepted != handed+uint64(inside) {
				w.t.Errorf("handle %d: %d accepted, %d handed over, %d inside", id, accepted, handed, inside)
			}
			if handed > owned[id]+liars*2*depth || handed+unheard < owned[id] {
				w.t.Errorf("handle %d: %d handed over, %d accepted by workers, of which %d lied", id, handed, owned[id], liars)
			}
			if h.anyMay() || h.anyFree() && (h.arrived() != nil || readable(h.sources[0].fd)) {
				w.t.Errorf("handle %d: somebody is free and %d wait inside, in the kernel: %v", id, len(h.waiting), readable(h.sources[0].fd))
			}
		}
		if resting && !w.d.failed {
			w.t.Error("somebody rests for ever")
		}
		for _, m := range w.peers {
			w.checkMate(m, w.d.peers[m.worker])
		}
	})
	var events [8]unix.EpollEvent
	n, _ := unix.EpollWait(w.d.ep, events[:], 0)
	for _, e := range events[:max(0, n)] {
		w.t.Errorf("the dispatcher does not come to rest: %+v", e)
	}
	if w.t.Failed() {
		for _, m := range w.peers {
			w.t.Logf("%v", m)
		}
		w.t.FailNow()
	}
}

// anyMay reports whether somebody may be given a connection that waits inside.
func (h *handle) anyMay() bool {
	for _, c := range h.waiting {
		for _, m := range h.members {
			if m.free() && (c.not != m.worker || c.soft) {
				return true
			}
		}
	}
	return false
}

// checkMate looks at a worker that has kept to the protocol and was heard.
func (w *peerWorld) checkMate(m *mate, p *peer) {
	if m.fd < 0 || !m.lawful || m.mute || m.rest || p == nil || p.paused {
		return
	}
	if p.ended || p.strikes > 0 || len(p.answers) > 0 && !m.deaf {
		w.t.Errorf("%v: ended %v, %d strikes, %d answers", m, p.ended, p.strikes, len(p.answers))
	}
	if readable(m.fd) || m.deaf || len(m.in) > 0 {
		return
	}
	if len(p.sent) != len(m.unsaid) || len(p.out) > 0 {
		w.t.Errorf("%v: %d to be acknowledged, %d to be said", m, len(p.sent), len(p.out))
	}
	var want, got []int64
	stale := 0 // its answer means nothing to anybody
	for _, g := range m.offers {
		if !g.at.removed {
			want = append(want, g.seq)
		} else {
			stale++
		}
	}
	if p.stale != stale {
		w.t.Errorf("%v: %d answers to come on a handle that is gone, want %d", m, p.stale, stale)
	}
	for _, part := range p.members {
		for _, c := range part.out {
			got = append(got, c.seq)
		}
	}
	if slices.Sort(got); !slices.Equal(got, want) {
		w.t.Errorf("%v: offered %v, and has %v", m, got, want)
	}
}

// end lets everybody die but one worker, who gets what is left, and judges every client
// by what it reads.
func (w *peerWorld) end() {
	for _, m := range w.peers {
		w.shut(m)
		w.d.RemovePeer(m.worker)
		m.rest = false
	}
	for _, m := range w.members {
		if m.fd >= 0 {
			w.gone(m.worker, 0)
		}
	}
	w.passTime(0)
	w.check()
	w.peers = slices.DeleteFunc(w.peers, func(m *mate) bool { return m.lawful })
	liars := w.peers
	w.peers = w.peers[:0:0]
	w.arrive(0)
	anchor := w.peers[0]
	anchor.tag = 255
	w.peers = append(w.peers, liars...)
	for w.check(); w.serves(anchor); w.check() {
	}
	for _, c := range w.clients {
		if c.owner == nil && !c.at.removed && !slices.Contains(w.lost, c) {
			w.t.Errorf("client %d of handle %d came to nobody", c.n, c.at.id)
		}
		if c.owner != nil && slices.Contains(w.lost, c) {
			w.t.Errorf("client %d of handle %d is %d's, and was lost", c.n, c.at.id, c.owner.tag)
		}
	}
	w.shut(anchor)
	w.d.RemovePeer(anchor.worker)
	w.settle()
	for _, c := range w.clients {
		if c.fd >= 0 {
			w.judge(c)
		}
	}
	if spent := time.Duration(w.threadTime() - w.cpu); spent > 100*time.Millisecond+time.Duration(w.ops)*time.Millisecond {
		w.t.Errorf("the dispatcher's thread used %v for %d operations", spent, w.ops)
	}
	w.d.Close()
	w.d.aside.Wait()
	if after := openFiles(w.t); after != w.before {
		w.t.Errorf("%d descriptors before, %d after", w.before, after)
	}
}
