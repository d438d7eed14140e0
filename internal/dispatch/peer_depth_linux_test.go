package dispatch

import (
	"errors"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What does not arrive goes to another, and to the same one if there is none.
func TestPeerMissesConnection(t *testing.T) {
	r := newRig(t, RoundRobin, Options{})
	one := r.peerOn(1)
	c := r.dial()
	o := one.newconn()
	one.drop(o)
	one.say(lineNack)
	again := one.newconn() // there is nobody else
	if one.drop(again); again.seq <= o.seq {
		t.Errorf("offered under the number %d, then %d", o.seq, again.seq)
	}
	two := r.peerOn(2)
	one.say(lineNack)
	two.serves(two.newconn())
	if by := who(t, c); by != 2 {
		t.Errorf("answered by %d", by)
	}
	one.say(o.answer(true)) // what it has not got
	r.until("a strike", func() bool { return one.strikes() == 1 })
}

// A descriptor that does not arrive is sent again, and not for ever; what was said
// behind it is not.
func TestPeerMissesFile(t *testing.T) {
	r := newRig(t, RoundRobin, Options{})
	a, _ := pipe(t)
	n := r.peer(1)
	n.tell(lineShared, a)
	n.tell("behind it", -1)
	n.withFile(lineShared, "")
	n.reads("behind it")
	n.say(lineNack)
	n.withFile(lineShared, "")
	n.say(lineAck)
	n.quiet()
	before := openFiles(t)
	n.tell(lineShared, a)
	for i := range maxTries {
		n.withFile(lineShared, "")
		n.quiet()
		if i == maxTries-1 {
			n.tell("once", -1)
			n.reads("once")
		}
		n.say(lineNack)
	}
	if err := n.ended(); !errors.Is(err, ErrPeerFiles) {
		t.Errorf("ended with %v", err)
	}
	n.quiet()
	if after := openFiles(t); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

// Of several before a worker each is acknowledged, missed and answered by itself.
func TestPeerMissesOneOfSeveral(t *testing.T) {
	r := newRig(t, RoundRobin, Options{})
	for range 4 {
		r.dial()
	}
	a, b := pipe(t)
	_, _ = unix.Write(b, []byte("ab"))
	n := r.peerOn(1)
	n.serves(n.newconn())
	r.accepted(4)
	n.tell(lineShared, a)
	offers := []offer{n.newconn(), n.newconn(), n.newconn()}
	line, fd, _ := n.next()
	_ = unix.Close(fd)
	r.d.Admit(1, false) // or it is asked again when it has rested
	n.say(lineAck, lineNack, lineAck, lineNack, offers[2].answer(true))
	if line != lineShared {
		t.Errorf("reads %q", line)
	}
	n.withFile(lineShared, "ab")
	n.quiet()
	n.drop(offers[1])
	two := r.peerOn(2)
	two.serves(two.newconn())
	n.say(offers[0].answer(false))
	two.serves(two.newconn())
	n.say(lineAck)
	r.settle()
	if accepted, handed, returned := r.d.Counts(1); accepted != 4 || handed != 4 || returned != 2 {
		t.Errorf("accepted %d, handed %d, returned %d", accepted, handed, returned)
	}
	n.isClean()
}

// A worker that answers has so many before it, when nobody is without, and one more for
// each that it answers, in whatever order. One that has not answered has one.
func TestPeerDepth(t *testing.T) {
	r := newRig(t, RoundRobin, Options{})
	const all = 3 * depth
	for range all + 1 {
		r.dial()
	}
	n := r.peerOn(1)
	first := n.newconn()
	n.quiet()
	n.serves(first)
	var offers []offer
	for range depth {
		offers = append(offers, n.newconn())
	}
	n.quiet()
	for i := range all {
		o := offers[(i*5)%len(offers)]
		offers = slices.DeleteFunc(offers, func(x offer) bool { return x == o })
		n.serves(o)
		if i < all-depth {
			offers = append(offers, n.newconn())
		}
		n.quiet()
	}
	if accepted, handed, returned := r.d.Counts(1); accepted != all+1 || handed != all+1 || returned != 0 {
		t.Errorf("accepted %d, handed %d, returned %d", accepted, handed, returned)
	}
}

// Who has none before it comes first; and who leaves one unanswered for long gets no
// second until it answers.
func TestPeerDepthAmongOthers(t *testing.T) {
	r := newRig(t, RoundRobin, Options{})
	one, two := r.peerOn(1), r.peerOn(2)
	r.dial()
	a := one.newconn()
	r.dial()
	b := two.newconn()
	r.answeredAt(time.Hour)
	r.dial()
	third := r.offered(map[byte]*node{1: one, 2: two})
	c := third.newconn()
	r.answeredAt(-time.Hour)
	r.dial()
	one.quiet()
	two.quiet()
	if accepted, _, _ := r.d.Counts(1); accepted != 3 {
		t.Errorf("%d accepted", accepted)
	}
	two.serves(b)
	two.serves(two.newconn())
	one.serves(a)
	third.serves(c)
}

// answeredAt lets all workers have answered, and been offered what they have not answered,
// at this time from now.
func (r *rig) answeredAt(when time.Duration) {
	r.d.do(func() {
		for _, h := range r.d.handles {
			for _, m := range h.members {
				m.since, m.answered = r.d.now.Add(when), r.d.now.Add(when)
			}
		}
	})
}

// Two handles of a worker are served in turn while connections wait on both, whatever
// else it says meanwhile.
func TestPeerHandlesInTurn(t *testing.T) {
	for name, says := range map[string]func(n *node, o offer){
		"at once": func(n *node, o offer) { n.say(lineAck, o.answer(true)) },
		"one by one": func(n *node, o offer) {
			n.say(lineAck)
			n.r.settle()
			n.say(o.answer(true))
		},
		"with a message": func(n *node, o offer) {
			n.say(lineAck, o.answer(true))
			n.r.settle()
			n.say(`"served"`)
		},
		"with two": func(n *node, o offer) {
			n.say(`"serving"`)
			n.r.settle()
			n.say(lineAck, o.answer(true))
			n.r.settle()
			n.say(`"served"`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			const each = 8 * depth
			r := newRig(t, RoundRobin, Options{})
			arrive := r.second(RoundRobin)
			for range each {
				r.dial()
				arrive()
			}
			n := r.peer(1)
			n.joins(1, "h1")
			n.joins(2, "h2")
			last, run, left := byte(0), 0, map[byte]int{'1': each, '2': each}
			for left['1'] > 0 && left['2'] > 0 {
				o := n.newconn()
				n.drop(o)
				if run++; o.key[1] != last {
					last, run = o.key[1], 1
				}
				if run > 2*depth {
					t.Fatalf("%d of %s one after the other, and %v wait", run, o.key, left)
				}
				left[last]--
				says(n, o)
				r.settle()
			}
		})
	}
}
