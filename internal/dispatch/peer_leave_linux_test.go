package dispatch

import (
	"slices"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// A worker gives one of its handles back while it has a connection of it to answer for.
func TestPeerLeavesHandle(t *testing.T) {
	for name, c := range map[string]struct {
		so     func(n *node, o offer)
		served byte
	}{
		"accepts": {func(n *node, o offer) { n.serves(o) }, 1},
		"refuses": {func(n *node, o offer) { n.refuses(o) }, 2},
		"has not got it": {func(n *node, o offer) {
			n.drop(o)
			n.say(lineNack)
		}, 2},
		"dies": {func(n *node, _ offer) {
			n.dies()
			n.close()
		}, 2},
		"ends": {func(n *node, _ offer) {
			n.close()
			n.ended()
		}, 2},
	} {
		for _, acknowledged := range []bool{false, true} {
			if acknowledged && name == "has not got it" {
				continue
			}
			t.Run(name, func(t *testing.T) {
				r := newRig(t, RoundRobin, Options{})
				arrive := r.second(RoundRobin)
				one := r.peerOn(1)
				one.joins(2, "h2")
				client := r.dial()
				o := one.newconn()
				if acknowledged {
					one.say(lineAck)
					r.settle()
				}
				r.d.Leave(1, 1)
				if got := r.d.Joined(1); len(got) > 0 {
					t.Errorf("joined %v", got)
				}
				later := r.dial()
				two := r.peerOn(2)
				if acknowledged && c.served == 1 {
					one.say(o.answer(true))
					_, _ = unix.Write(o.fd, []byte{1})
					one.drop(o)
				} else if acknowledged && name == "refuses" {
					one.drop(o)
					one.say(o.answer(false))
				} else {
					c.so(one, o)
				}
				two.serves(two.newconn())
				if c.served == 2 {
					two.serves(two.newconn())
				}
				if by := who(t, client); by != c.served {
					t.Errorf("answered by %d, want %d", by, c.served)
				}
				if by := who(t, later); by != 2 {
					t.Errorf("the next one answered by %d", by)
				}
				two.quiet()
				if name == "dies" || name == "ends" {
					return
				}
				r.d.do(func() {
					if members := r.d.handles[1].members; len(members) != 1 {
						t.Errorf("%d members", len(members))
					}
				})
				arrive() // the other handle is still its own
				o = one.newconn()
				if o.key != "h2" {
					t.Errorf("offered %+v", o)
				}
				one.serves(o)
				one.quiet()
				one.isClean()
			})
		}
	}
}

// It comes back to the handle while the connection of its former part is unanswered.
func TestPeerLeavesAndComesBack(t *testing.T) {
	r := newRig(t, RoundRobin, Options{})
	one := r.peerOn(1)
	client := r.dial()
	o := one.newconn()
	r.d.Leave(1, 1)
	one.joins(1, "again")
	if got := r.d.Joined(1); !slices.Equal(got, []uint64{1}) {
		t.Errorf("joined %v", got)
	}
	r.dial()
	later := one.newconn()
	one.refuses(o)
	one.serves(later)
	back := one.newconn()
	if later.key != "again" || back.key != "again" {
		t.Errorf("offered %+v and %+v", later, back)
	}
	one.serves(back)
	if by := who(t, client); by != 1 {
		t.Errorf("answered by %d", by)
	}
}

// A worker that is told to go answers for what it has been offered, and gets no more.
func TestPeerNotAdmitted(t *testing.T) {
	for _, accepted := range []bool{true, false} {
		r := newRig(t, RoundRobin, Options{})
		one := r.peerOn(1)
		client := r.dial()
		o := one.newconn()
		r.d.Admit(1, false)
		r.dial()
		one.say(lineAck)
		one.quiet()
		one.say(o.answer(accepted))
		one.quiet()
		two := r.peer(2)
		if accepted {
			_, _ = unix.Write(o.fd, []byte{1})
		}
		one.drop(o)
		two.joins(1, "h1")
		two.serves(two.newconn())
		want := byte(1)
		if !accepted {
			want = 2
			two.serves(two.newconn())
		}
		if by := who(t, client); by != want {
			t.Errorf("answered by %d, want %d", by, want)
		}
		two.quiet()
		one.quiet()
		r.d.Admit(1, true)
		r.d.Admit(2, false)
		r.dial()
		one.serves(one.newconn())
	}
}

// The handle goes while a connection of it is offered: what comes late is no strike, and
// the other handles go on.
func TestPeerHandleRemoved(t *testing.T) {
	for name, late := range map[string]func(n *node, o offer){
		"acknowledges and accepts": func(n *node, o offer) { n.say(lineAck, o.answer(true)) },
		"acknowledges and refuses": func(n *node, o offer) { n.say(lineAck, o.answer(false)) },
		"one by one": func(n *node, o offer) {
			n.say(lineAck)
			n.r.settle()
			n.say(o.answer(true))
		},
		"has not got it":                 func(n *node, _ offer) { n.say(lineNack) },
		"answers before it acknowledges": func(n *node, o offer) { n.say(o.answer(true), lineAck) },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, RoundRobin, Options{})
			arrive := r.second(RoundRobin)
			n := r.peerOn(1)
			n.joins(2, "h2")
			c := r.dial()
			o := n.newconn()
			before := openFiles(t)
			r.d.Remove(1)
			if after := openFiles(t); after != before-2 { // the socket and a copy
				t.Errorf("%d descriptors before, %d after", before, after)
			}
			arrive()
			late(n, o)
			n.drop(o)
			if b := make([]byte, 1); true {
				if k, err := c.Read(b); k != 0 || err == nil {
					t.Errorf("the client reads %v, %v", b[:k], err)
				}
			}
			n.serves(n.newconn())
			n.quiet()
			n.isClean()
		})
	}
}

// Workers of both kinds on one handle take turns, and what one leaves the other gets.
func TestPeersAmongOthers(t *testing.T) {
	r := newRig(t, RoundRobin, Options{Batch: 1})
	r.patient()
	var wg sync.WaitGroup
	native, n := r.join(1, 0), r.peerOn(2)
	other, m := r.join(3, 2), r.peerOn(4)
	native.serve(&wg)
	other.serve(&wg)
	n.run(&wg)
	m.run(&wg)
	for i := range 40 {
		if got, want := r.ask(), byte(i%4+1); got != want {
			t.Fatalf("connection %d went to %d, want %d", i, got, want)
		}
	}
	r.leave(native)
	r.leave(other)
	n.dies()
	m.dies()
	wg.Wait()
}

// From one kind to the other: a worker that refuses, one that reads late, and both that
// die.
func TestPeersBetweenOthers(t *testing.T) {
	r := newRig(t, RoundRobin, Options{Batch: 1})
	r.patient()
	n := r.peerOn(1)
	c := r.dial()
	_, _ = c.Write([]byte("early"))
	o := n.newconn()
	native := r.join(2, 0)
	n.refuses(o)
	r.until("with the other kind", func() (is bool) {
		native.control(func(fd int) { is = readable(fd) })
		return is
	})
	three := r.peerOn(3)
	r.late() // and back again
	three.drop(three.newconn())
	three.dies()
	n.serves(n.brings("early")) // the other has not read that it has nothing
	if by := who(t, c); by != 1 {
		t.Errorf("answered by %d", by)
	}
	if got, err := native.take(); got != 0 || err != nil {
		t.Errorf("the one that was late has %d connections: %v", got, err)
	}
	c = r.dial()
	r.settle()
	r.leave(native)
	n.serves(n.newconn())
	if by := who(t, c); by != 1 {
		t.Errorf("answered by %d", by)
	}
}
