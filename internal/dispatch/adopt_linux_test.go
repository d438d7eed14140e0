package dispatch

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
)

// successor is another dispatcher on the same port, with copies of what the first one
// has of a worker: what is kept outside of a master that is killed.
func (r *rig) successor(t *testing.T, part uint64) (*rig, Member) {
	t.Helper()
	var m Member
	copyOf := func(fd int) *fdpass.File {
		n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		return fdpass.NewFile(n)
	}
	r.d.Lend(1, part, func(channel, far, page int) {
		m.Channel, m.Far, m.Page = copyOf(channel), copyOf(far), copyOf(page)
	})
	if m.Channel == nil {
		t.Fatal("nothing was lent")
	}
	var listener *fdpass.File
	r.d.do(func() { listener = copyOf(r.d.handles[1].sources[0].fd) })
	r.d.Close()
	d, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close(); d.aside.Wait() })
	d.Add(1, RoundRobin)
	if err := d.AddSocket(1, listener); err != nil {
		t.Fatal(err)
	}
	return &rig{t: t, d: d, addr: r.addr}, m
}

// TestAdoptedMember: a dispatcher goes on where another ended. What a worker had not
// read is its own still, or another's when it is dead, and it counts for its limit.
func TestAdoptedMember(t *testing.T) {
	r := newRig(t, RoundRobin, Options{})
	f, m := newFake(t, 1)
	m.Admitted, m.Part, m.Limit = true, 77, 9
	if err := r.d.Join(1, m); err != nil {
		t.Fatal(err)
	}
	served := r.dial()
	if n, err := f.take(); err != nil || n != 1 {
		t.Fatal(n, err)
	}
	unread := r.dial()
	r.accepted(2)
	next, m := r.successor(t, 77)
	m.Worker, m.Admitted, m.Part, m.Limit = 1, true, 78, 9
	if err := next.d.Join(1, m); err != nil {
		t.Fatal(err)
	}
	if who(t, served) != 1 {
		t.Error("not served by the first")
	}
	var open int64
	next.d.do(func() { open = next.d.handles[1].members[0].open() })
	if open != 2 {
		t.Errorf("%d connections by the page, and 2 were handed over", open)
	}
	if n, err := f.take(); err != nil || n != 1 {
		t.Fatalf("what was not read: %d, %v", n, err)
	}
	if who(t, unread) != 1 {
		t.Error("not served by the first")
	}
	// A third, which the worker does not come to read.
	lost := next.dial()
	next.accepted(1)
	left := make(chan uint64, 1)
	next.d.o.Left = func(_, part uint64) { left <- part }
	other := next.join(2, 1)
	_ = f.ch.Close()
	next.d.Leave(0, 1)
	if n, err := other.take(); err != nil || n != 1 {
		t.Fatal(n, err)
	}
	if who(t, lost) != 2 {
		t.Error("not served by the other")
	}
	if part := <-left; part != 78 {
		t.Errorf("part %d has left", part)
	}
}

// TestAdoptedPeer: an acknowledgement of what an earlier dispatcher sent is not one of
// what this one did, and the rest of a line that it had begun to read is skipped.
func TestAdoptedPeer(t *testing.T) {
	r := newRig(t, RoundRobin, Options{})
	page, err := fdpass.NewPage("node")
	if err != nil {
		t.Fatal(err)
	}
	keep, err := page.Dup()
	if err != nil {
		t.Fatal(err)
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	_ = unix.SetNonblock(pair[0], true)
	near, err := unix.FcntlInt(uintptr(pair[0]), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	n := &node{r: r, id: 1, fd: pair[1], told: make(chan struct{}, 1)}
	t.Cleanup(n.close)
	if err := r.d.AddPeer(Peer{Worker: 1, Channel: fdpass.NewFile(pair[0]), Page: page, Hear: n.hear}); err != nil {
		t.Fatal(err)
	}
	n.joins(1, "h1")
	first := r.dial()
	r.offered(map[byte]*node{1: n})
	o := n.newconn()

	var listener int
	r.d.do(func() { listener, _ = unix.FcntlInt(uintptr(r.d.handles[1].sources[0].fd), unix.F_DUPFD_CLOEXEC, 0) })
	r.d.Close()
	d, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close(); d.aside.Wait() })
	d.Add(1, RoundRobin)
	if err := d.AddSocket(1, fdpass.NewFile(listener)); err != nil {
		t.Fatal(err)
	}
	r.d = d
	if err := d.AddPeer(Peer{Worker: 1, Channel: fdpass.NewFile(near), Page: keep, Seq: 1 << 32, Adopted: true, Hear: n.hear}); err != nil {
		t.Fatal(err)
	}
	n.joins(1, "h1")
	var before, strikes int
	d.do(func() { before = d.peers[1].old })
	n.say("est of a line that the dead one has begun to read", lineAck, o.answer(true))
	r.settle()
	second := r.dial()
	r.offered(map[byte]*node{1: n})
	d.do(func() { strikes = d.peers[1].strikes })
	if before != 1 || strikes != 0 {
		t.Errorf("%d acknowledgements were to come, the worker has %d strikes", before, strikes)
	}
	n.say(lineAck, n.newconn().answer(true))
	r.settle()
	n.isClean()
	_, _ = first.Close(), second.Close()
	if len(n.ends) != 1 { // of the first dispatcher
		t.Errorf("the channel has ended: %v", n.ends)
	}
}
