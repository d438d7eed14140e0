package dispatch

import (
	"errors"
	"io"
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// deaths are how far a worker comes with a connection, and whether it is its own then.
var deaths = []struct {
	name string
	so   func(n *node)
	own  bool
}{
	{"has not read it", func(*node) {}, false},
	{"has read it", func(n *node) { n.newconn() }, false},
	{"has its descriptor", func(n *node) { n.newconn(); n.say(lineAck) }, false},
	{"has said that it has not", func(n *node) { n.newconn(); n.say(lineNack) }, false},
	{"accepts", func(n *node) { n.say(lineAck, n.newconn().answer(true)) }, true},
	{"accepts without an acknowledgement", func(n *node) { n.say(n.newconn().answer(true)) }, true},
	{"refuses", func(n *node) { n.say(lineAck, n.newconn().answer(false)) }, false},
	{"says half of its answer", func(n *node) { n.half(lineAck+"\n", n.newconn().answer(true)) }, false},
	{"is asleep", func(n *node) {
		n.pause(true)
		o := n.newconn()
		n.say(`"a message"`)
		n.r.settle()
		n.say(`"another"`, lineAck, o.answer(true))
		n.r.settle()
	}, true},
	{"is asleep and has not answered", func(n *node) {
		n.pause(true)
		n.newconn()
		n.say(`"a message"`)
		n.r.settle()
		n.say(`"another"`, lineAck)
		n.r.settle()
	}, false},
	{"was told more", func(n *node) { n.say(lineAck); n.tell("more", -1); n.r.settle() }, false},
}

// half writes a line but for its end.
func (n *node) half(before, line string) {
	n.r.t.Helper()
	if _, err := unix.Write(n.fd, []byte(before+line[:len(line)-5])); err != nil {
		n.r.t.Fatal(err)
	}
}

// Whatever a worker has done before its end: the connection is its own once it has
// accepted, and before that it is another's, with every byte unread.
func TestPeerDies(t *testing.T) {
	for _, how := range []string{"closes", "is removed", "closes and is removed"} {
		for _, death := range deaths {
			t.Run(death.name+" and "+how, func(t *testing.T) {
				r := newRig(t, RoundRobin, Options{})
				one := r.peerOn(1)
				c := r.dial()
				_, _ = c.Write([]byte("early"))
				r.accepted(1)
				death.so(one)
				two := r.peer(2)
				if how != "is removed" {
					one.close()
				}
				if how != "closes" || one.rest { // who is not heard has no end either
					one.dies()
				}
				one.ended()
				one.close()
				two.joins(1, "h1")
				later := r.dial()
				if !death.own {
					two.serves(two.brings("early"))
					if by := who(t, c); by != 2 {
						t.Errorf("answered by %d", by)
					}
				} else if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
					t.Errorf("what it had accepted is answered: %d, %v", n, err)
				}
				two.serves(two.newconn())
				if by := who(t, later); by != 2 {
					t.Errorf("the next one answered by %d", by)
				}
				two.quiet()
			})
		}
	}
}

// Who breaks the protocol lives on, and may find in its channel what it was offered: that
// is nobody else's.
func TestPeerBreaksTheLaw(t *testing.T) {
	r := newRig(t, RoundRobin, Options{})
	one := r.peerOn(1)
	c := r.dial()
	r.accepted(1)
	one.say(`{"cmd":"NODE_HANDLE`)
	if err := one.ended(); !errors.Is(err, ErrPeerGarbage) {
		t.Errorf("ended with %v", err)
	}
	two := r.peerOn(2)
	two.quiet()
	o := one.newconn()
	if !isOpen(c) {
		t.Error("closed while one has it")
	}
	one.drop(o)
	if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("the client reads %d bytes, %v", n, err)
	}
	if accepted, handed, returned := r.d.Counts(1); accepted != 1 || handed != 1 || returned != 0 {
		t.Errorf("accepted %d, handed %d, returned %d", accepted, handed, returned)
	}
	if err := r.d.Tell(1, []byte("\n"), nil); err == nil {
		t.Error("it can be told something")
	}
	if err := r.d.JoinPeer(1, PeerMember{Worker: 1, Key: "h1"}); err == nil {
		t.Error("it joins a handle")
	}
	one.dies()
	two.quiet()
}

// Of two handles each gets back what was offered of it.
func TestPeerDiesOnTwoHandles(t *testing.T) {
	r := newRig(t, RoundRobin, Options{})
	arrive := r.second(RoundRobin)
	one := r.peerOn(1)
	one.joins(2, "h2")
	c := r.dial()
	one.newconn()
	one.say(lineAck)
	far := arrive()
	o := one.newconn()
	if o.key != "h2" {
		t.Fatalf("offered %+v", o)
	}
	one.close()
	one.ended()
	one.dies()
	two := r.peer(2)
	two.joins(2, "h2")
	two.serves(two.newconn())
	if b := make([]byte, 1); true {
		if n, err := unix.Read(far, b); n != 1 || err != nil || b[0] != 2 {
			t.Errorf("answered %v, %v", b, err)
		}
	}
	two.joins(1, "h1")
	two.serves(two.newconn())
	if by := who(t, c); by != 2 {
		t.Errorf("answered by %d", by)
	}
}

// Once a worker has accepted nobody else holds the connection: its end is the client's.
func TestPeerOwnsWhatItAccepts(t *testing.T) {
	r := newRig(t, RoundRobin, Options{})
	n := r.peerOn(1)
	c := r.dial()
	o := n.newconn()
	n.say(lineAck, o.answer(true))
	r.settle()
	n.drop(o)
	if b, err := io.ReadAll(c); len(b) > 0 || err != nil {
		t.Errorf("the client reads %q, %v", b, err)
	}
	// And before: it closes, and the client hears of it with the answer.
	c = r.dial()
	o = n.newconn()
	n.drop(o)
	n.say(lineAck)
	n.quiet()
	if !isOpen(c) {
		t.Error("closed before the answer")
	}
	n.say(o.answer(true))
	if b, err := io.ReadAll(c); len(b) > 0 || err != nil {
		t.Errorf("the client reads %q, %v", b, err)
	}
}

// isOpen reports whether a client has heard of no end.
func isOpen(c net.Conn) (open bool) {
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		return false
	}
	_ = raw.Control(func(fd uintptr) { open = !readable(int(fd)) })
	return open
}

// A worker that is gone while nobody else is there: its connection waits, and the
// master is told.
func TestPeerStrands(t *testing.T) {
	stranded := make(chan uint64, 16)
	r := newRig(t, RoundRobin, Options{Stranded: func(handle uint64) { stranded <- handle }})
	one := r.peerOn(1)
	c := r.dial()
	_, _ = c.Write([]byte("early"))
	one.newconn()
	one.dies()
	one.close()
	if got := <-stranded; got != 1 {
		t.Errorf("stranded on %d", got)
	}
	two := r.peerOn(2)
	two.serves(two.brings("early"))
	if by := who(t, c); by != 2 {
		t.Errorf("answered by %d", by)
	}
}
