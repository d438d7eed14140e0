package dispatch

import (
	"bytes"
	"errors"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func (w *world) settle() { w.d.settle() }

// check looks at the dispatcher between two operations.
func (w *world) check() {
	w.ops++
	w.settle()
	free := map[uint64]int{}
	for _, m := range w.members {
		if m.lawful && m.fd >= 0 && m.admitted && !m.full && !readable(m.fd) && (m.limit == 0 || m.got-m.closed < m.limit) {
			free[m.at.id]++
		}
	}
	owned := map[uint64]uint64{}
	for _, c := range w.clients {
		if c.owner != nil {
			owned[c.at.id]++
		}
	}
	w.d.do(func() {
		for id, h := range w.d.handles {
			inside, frees := len(h.waiting), 0
			for _, m := range h.members {
				if m.free() {
					frees++
				}
				m.hasRead()
				inside += len(m.out) + len(m.batch)
			}
			if frees != free[id] {
				w.t.Errorf("handle %d: %d members are free, and the dispatcher thinks %d", id, free[id], frees)
			}
			accepted, handed := h.stats.Accepted.Load(), h.stats.Handed.Load()
			passed := w.handles[id-1].passed
			if accepted+passed != handed+uint64(inside) {
				w.t.Errorf("handle %d: %d accepted, %d passed on, %d handed over, %d inside", id, accepted, passed, handed, inside)
			}
			if handed != owned[id]+passed {
				w.t.Errorf("handle %d: %d handed over, and the members read %d and %d that they passed on", id, handed, owned[id], passed)
			}
			// Over TCP a connection may arrive a moment after connect(2).
			if h.anyTakes() || h.anyFree() && (!w.tcp && (h.arrived() != nil || readable(h.sources[0].fd))) {
				w.t.Errorf("handle %d: somebody is free and %d wait inside, in the kernel: %v", id, len(h.waiting), readable(h.sources[0].fd))
			}
		}
	})
	if !w.tcp {
		// An event that nobody takes care of is one that epoll reports for ever.
		var events [8]unix.EpollEvent
		n, _ := unix.EpollWait(w.d.ep, events[:], 0)
		for _, e := range events[:max(0, n)] {
			if e.Fd != atClock {
				w.t.Errorf("the dispatcher does not come to rest: %+v", e)
			}
		}
	}
	if w.t.Failed() {
		for _, m := range w.members {
			w.t.Logf("%v", m)
		}
		w.t.FailNow()
	}
}

// end lets everybody die but one member of each handle, who gets what is left, and
// judges every client by what it reads.
func (w *world) end() {
	old := w.members
	w.members = nil
	for i, p := range w.handles {
		if !p.removed {
			w.join(i)
			w.members[len(w.members)-1].tag = byte(100 + i)
		}
	}
	anchors := w.members
	w.members = append(old, anchors...)
	for _, m := range old {
		if m.fd >= 0 {
			w.gone(m.worker, 0)
		}
	}
	for _, m := range anchors {
		for w.check(); w.arrives(m); w.check() {
		}
	}
	for _, c := range w.clients {
		if c.owner == nil && !c.at.removed {
			w.t.Errorf("client %d of handle %d came to nobody", c.n, c.at.id)
		}
	}
	for _, m := range anchors {
		w.gone(m.worker, 0)
	}
	w.settle()
	for _, c := range w.clients {
		if c.fd >= 0 {
			w.judge(c)
		}
	}
	// Some microseconds an operation; a thread that spins has all of the time.
	if spent := time.Duration(w.threadTime() - w.cpu); spent > 100*time.Millisecond+time.Duration(w.ops)*time.Millisecond {
		w.t.Errorf("the dispatcher's thread used %v for %d operations", spent, w.ops)
	}
	w.d.Close()
	w.d.aside.Wait()
	if after := openFiles(w.t); after != w.before {
		w.t.Errorf("%d descriptors before, %d after", w.before, after)
	}
}

// arrives reads a message of an anchor. Over TCP what is in the kernel may take a
// moment: as long as a client is nobody's, one is to come.
func (w *world) arrives(m *player) bool {
	for _, c := range w.clients {
		if c.at == m.at && c.owner == nil {
			p := []unix.PollFd{{Fd: int32(m.fd), Events: unix.POLLIN}}
			_, _ = unix.Poll(p, 2000)
			break
		}
	}
	return w.receive(m)
}

// judge reads a client to its end, once its owner has closed: it must have heard
// of that one alone, and the dispatcher must hold it no longer.
func (w *world) judge(c *client) {
	var got []byte
	for {
		p := []unix.PollFd{{Fd: int32(c.fd), Events: unix.POLLIN}}
		if n, _ := unix.Poll(p, 5000); n == 0 {
			w.t.Errorf("client %d: its owner has closed, and the connection is open", c.n)
			break
		}
		var b [8]byte
		n, err := unix.Read(c.fd, b[:])
		if n <= 0 {
			if err != nil && !errors.Is(err, syscall.ECONNRESET) {
				w.t.Errorf("client %d: %v", c.n, err)
			}
			break
		}
		got = append(got, b[:n]...)
	}
	var want []byte
	if c.owner != nil {
		want = []byte{c.owner.tag}
	}
	if !bytes.Equal(got, want) {
		w.t.Errorf("client %d of handle %d heard %v, want %v", c.n, c.at.id, got, want)
	}
	w.hangUp(c.n)
}
