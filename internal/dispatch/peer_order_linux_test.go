package dispatch

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
)

func TestPeersStrictlyInTurn(t *testing.T) {
	r := newRig(t, RoundRobin, Options{})
	var wg sync.WaitGroup
	nodes := []*node{r.peerOn(1), r.peerOn(2), r.peerOn(3)}
	for _, n := range nodes {
		n.run(&wg)
	}
	for i := range 60 {
		if got, want := r.ask(), byte(i%3+1); got != want {
			t.Fatalf("connection %d went to %d, want %d", i, got, want)
		}
	}
	for _, n := range nodes {
		n.dies()
	}
	wg.Wait()
}

// A Tell before the part in a handle comes before its first connection.
func TestPeerRepliesComeFirst(t *testing.T) {
	r := newRig(t, RoundRobin, Options{})
	r.dial()
	n := r.peer(1)
	for _, line := range []string{"one", "two"} {
		n.tell(line, -1)
	}
	n.joins(1, "h1")
	n.reads("one")
	n.reads("two")
	if o := n.newconn(); o.key != "h1" || o.seq != 1 {
		t.Errorf("offered %+v", o)
	}
}

// second adds another handle to a rig, at which connections arrive by Pass.
func (r *rig) second(policy Policy) (arrive func() (client int)) {
	r.t.Helper()
	r.d.Add(2, policy)
	return func() int {
		r.t.Helper()
		near, far := pipe(r.t)
		file, err := fdpass.NewFile(near).Dup()
		if err != nil {
			r.t.Fatal(err)
		}
		if err := r.d.Pass(2, Passed{Connection: file}); err != nil {
			r.t.Fatal(err)
		}
		return far
	}
}

// Everything comes in the order in which it was said, each descriptor with its own line,
// whether the worker acknowledges or not.
func TestPeerLinesInOrder(t *testing.T) {
	r := newRig(t, RoundRobin, Options{})
	arrive := r.second(RoundRobin)
	a, b := pipe(t)
	c, d := pipe(t)
	n := r.peerOn(1)
	n.joins(2, "h2")
	client := r.dial()
	_, _ = client.Write([]byte("first"))
	r.accepted(1)
	n.tell("plain", -1)
	n.tell(lineShared, a)
	n.tell("between", -1)
	n.tell(lineShared, c)
	far := arrive()
	_, _ = unix.Write(far, []byte("second"))
	_, _ = unix.Write(b, []byte("third"))
	_, _ = unix.Write(d, []byte("fourth"))
	r.settle()
	first := n.brings("first")
	n.reads("plain")
	n.withFile(lineShared, "third")
	n.reads("between")
	n.withFile(lineShared, "fourth")
	second := n.brings("second")
	if first.key != "h1" || second.key != "h2" || second.seq != first.seq+1 {
		t.Errorf("offered %+v, then %+v", first, second)
	}
	n.quiet()
	n.say(second.answer(true), lineAck, lineAck, first.answer(true), lineAck, lineAck)
	n.quiet()
	n.isClean()
	n.say(lineAck) // one too many
	n.quiet()
	if got := n.strikes(); got != 1 {
		t.Errorf("%d strikes", got)
	}
}

// While the channel is full everything waits, in order and connections behind it; but for
// the answers to descriptors of the worker's.
func TestPeerWithFullChannel(t *testing.T) {
	r := newRig(t, RoundRobin, Options{})
	a, _ := pipe(t)
	n := r.peer(1)
	var told []string
	for i := 0; n.waiting() < 3; i++ {
		told = append(told, fmt.Sprint(i, strings.Repeat("x", maxLetter/2)))
		n.tell(told[i], -1)
	}
	n.tell(lineShared, a)
	n.joins(1, "h1")
	r.dial()
	n.sayWith(lineHandle, a)
	n.say(lineHandle)
	r.settle()
	if accepted, _, _ := r.d.Counts(1); accepted != 0 {
		t.Errorf("%d accepted", accepted)
	}
	in := len(told) - 3 // in the channel
	for _, want := range slices.Concat(told[:in], []string{lineAck, lineNack}, told[in:]) {
		n.reads(want)
	}
	n.withFile(lineShared, "")
	o := n.newconn()
	n.say(lineAck, lineAck, o.answer(true))
	n.quiet()
	n.isClean()
}

// waiting is how many lines wait for the channel to have room.
func (n *node) waiting() (lines int) {
	n.r.d.do(func() {
		if p := n.r.d.peers[n.id]; p != nil {
			lines = len(p.out)
		}
	})
	return lines
}

// What answers a descriptor of the worker's is said once for each.
func TestPeerAnswersDescriptors(t *testing.T) {
	r := newRig(t, RoundRobin, Options{})
	a, b := pipe(t)
	n := r.peerOn(1)
	r.dial()
	o := n.newconn()
	n.sayWith(lineHandle, a)
	n.reads(lineAck)
	n.say(lineHandle)
	n.reads(lineNack)
	n.say(lineHandle, lineHandle)
	n.reads(lineNack)
	n.reads(lineNack)
	n.sayWith(lineHandle+"\n"+lineHandle, a, b)
	n.reads(lineAck)
	n.reads(lineAck)
	n.quiet()
	n.say(lineAck, o.answer(true))
	n.quiet()
	if got := n.lines(); len(got) != 6 || got[0] != lineHandle {
		t.Errorf("heard %q", got)
	}
	n.isClean()
}

// With the dispatcher everything ends: what waits to be said, what was offered, what is
// not heard. What is in the channel is the worker's.
func TestPeersAtClose(t *testing.T) {
	before := openFiles(t)
	r := newRig(t, RoundRobin, Options{})
	a, _ := pipe(t)
	one, two := r.peerOn(1), r.peerOn(2)
	one.pause(true)
	one.say(`"one"`)
	r.settle()
	one.say(lineAck, `"unheard"`)
	c := r.dial()
	r.accepted(1)
	for two.waiting() < 3 {
		two.tell(lineShared, a)
	}
	if err := r.d.Tell(2, make([]byte, maxLetter+1), nil); err == nil {
		t.Error("told a line that is too long")
	}
	r.d.Close()
	r.d.aside.Wait()
	for _, n := range []*node{one, two} {
		n.ended()
	}
	o := one.newconn()
	_, _ = unix.Write(o.fd, []byte{1})
	one.drop(o)
	if by := who(t, c); by != 1 {
		t.Errorf("answered by %d", by)
	}
	copied, err := fdpass.NewFile(a).Dup()
	if err != nil {
		t.Fatal(err)
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	_ = unix.Close(pair[1])
	for what, err := range map[string]error{
		"tell":  r.d.Tell(1, []byte("\n"), copied),
		"join":  r.d.JoinPeer(1, PeerMember{Worker: 1, Key: "h1"}),
		"begin": r.d.AddPeer(Peer{Worker: 3, Channel: fdpass.NewFile(pair[0])}),
	} {
		if err == nil {
			t.Errorf("%s after the end", what)
		}
	}
	r.d.Resume(1)
	r.d.RemovePeer(1)
	one.close()
	two.close()
	if after := openFiles(t); after != before+2 { // of pipe
		t.Errorf("%d descriptors before, %d after", before, after-2)
	}
}
