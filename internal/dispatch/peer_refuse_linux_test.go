package dispatch

import (
	"net"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A connection that one refuses goes to another at once, with all that it brought.
func TestPeerRefuses(t *testing.T) {
	r := newRig(t, RoundRobin, Options{})
	one := r.peerOn(1)
	c := r.dial()
	_, _ = c.Write([]byte("early"))
	o := one.newconn()
	two := r.peerOn(2)
	one.refuses(o)
	two.serves(two.brings("early"))
	if by := who(t, c); by != 2 {
		t.Errorf("answered by %d", by)
	}
	if accepted, handed, returned := r.d.Counts(1); accepted != 1 || handed != 1 || returned != 1 {
		t.Errorf("accepted %d, handed %d, returned %d", accepted, handed, returned)
	}
}

// brings wants a connection next whose client has said this, and reads it.
func (n *node) brings(want string) offer {
	n.r.t.Helper()
	o := n.newconn()
	b := make([]byte, 64)
	size, err := unix.Read(o.fd, b)
	if err != nil || string(b[:size]) != want {
		n.r.t.Fatalf("worker %d is handed a client that said %q (%v), want %q", n.id, b[:max(0, size)], err, want)
	}
	return o
}

// While all refuse, the connection waits without much work, and is served soon after
// one of them accepts again.
func TestPeersAllRefuse(t *testing.T) {
	r := newRig(t, RoundRobin, Options{})
	nodes := []*node{r.peerOn(1), r.peerOn(2), r.peerOn(3)}
	for range 3 {
		r.dial()
	}
	begun, cpu := time.Now(), r.threadTime()
	refused, served := 0, 0
	// answer lets everybody refuse who is asked, but for one.
	answer := func(accepts *node) {
		var polls []unix.PollFd
		for _, n := range nodes {
			polls = append(polls, unix.PollFd{Fd: int32(n.fd), Events: unix.POLLIN})
		}
		_, _ = unix.Poll(polls, 100)
		for i, n := range nodes {
			switch {
			case polls[i].Revents == 0:
			case n == accepts:
				n.serves(n.newconn())
				served++
			default:
				n.refuses(n.newconn())
				refused++
			}
		}
	}
	for time.Since(begun) < 500*time.Millisecond {
		answer(nil)
	}
	took, spent := time.Since(begun), time.Duration(r.threadTime()-cpu)
	t.Logf("in %v %d refusals and %v of the thread's time", took.Round(time.Millisecond), refused, spent)
	if most := int(3*took/restShortest) + 3; refused < 6 || refused > most {
		t.Errorf("%d refusals, want 6 to %d", refused, most)
	}
	if spent > took/4 {
		t.Errorf("the thread used %v of %v", spent, took)
	}
	if accepted, handed, _ := r.d.Counts(1); accepted != 3 || handed != 0 {
		t.Errorf("%d accepted, %d handed over", accepted, handed)
	}
	for begun = time.Now(); served < 3 && time.Since(begun) < 10*time.Second; {
		answer(nodes[1])
	}
	late := time.Since(begun)
	t.Logf("all three served %v after one accepts again", late)
	if late > 50*time.Millisecond*slack {
		t.Errorf("served after %v", late)
	}
}

// slack is by how much a busy machine may be slower than what is promised.
const slack = 10

// threadTime is the CPU time of the dispatcher's thread, in nanoseconds.
func (r *rig) threadTime() int64 { return (&world{d: r.d}).threadTime() }

// The one that refuses is asked again when it has rested, and not before; what others
// take is not held up by it.
func TestPeerRests(t *testing.T) {
	r := newRig(t, RoundRobin, Options{})
	one := r.peerOn(1)
	r.dial()
	var rests []time.Duration
	for range 6 {
		o := one.newconn()
		begun := time.Now()
		one.refuses(o)
		p := []unix.PollFd{{Fd: int32(one.fd), Events: unix.POLLIN}}
		_, _ = unix.Poll(p, 5000)
		rests = append(rests, time.Since(begun).Round(100*time.Microsecond))
	}
	t.Logf("it rested for %v", rests)
	slices.Sort(rests)
	if rests[0] < restShortest/2 || rests[2] > slack*(restLongest+period) {
		t.Errorf("it rested for %v", rests)
	}
	one.serves(one.newconn())
}

// Under source_hash the client that its worker refuses goes to its second choice, and
// comes back to the first afterwards.
func TestPeersBySourceHash(t *testing.T) {
	r := newRig(t, SourceHash, Options{})
	nodes := map[byte]*node{1: r.peerOn(1), 2: r.peerOn(2), 3: r.peerOn(3)}
	from := func(i int) net.Conn {
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(i))}, Timeout: 5 * time.Second}
		c, err := dialer.Dial("tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		return c
	}
	seen := map[byte]int{}
	for i := range 30 {
		c := from(i + 1)
		first := r.offered(nodes)
		o := first.newconn()
		first.serves(o)
		who(t, c)
		seen[byte(first.id)]++
		c = from(i + 1)
		if again := r.offered(nodes); again != first {
			t.Fatalf("client %d went to %d, then to %d", i, first.id, again.id)
		}
		o = first.newconn()
		first.refuses(o)
		second := r.offered(nodes)
		if second == first {
			t.Fatalf("client %d was refused by %d, and came back while others are free", i, first.id)
		}
		second.serves(second.newconn())
		who(t, c)
		r.until("all have rested", func() (is bool) {
			r.d.do(func() {
				is = true
				for _, m := range r.d.handles[1].members {
					is = is && m.free()
				}
			})
			return is
		})
	}
	for id := byte(1); id <= 3; id++ {
		if seen[id] < 3 {
			t.Errorf("of 30 clients worker %d has %d", id, seen[id])
		}
	}
}

// offered waits until one of the workers has something to read, and returns it.
func (r *rig) offered(nodes map[byte]*node) *node {
	r.t.Helper()
	var polls []unix.PollFd
	var list []*node
	for _, n := range nodes {
		polls = append(polls, unix.PollFd{Fd: int32(n.fd), Events: unix.POLLIN})
		list = append(list, n)
	}
	if n, err := unix.Poll(polls, 10_000); n != 1 || err != nil {
		r.t.Fatalf("%d workers have something to read, want one: %v", n, err)
	}
	return list[slices.IndexFunc(polls, func(p unix.PollFd) bool { return p.Revents != 0 })]
}

// Workers with a Peer say nothing of what they have open: it is what they were handed,
// until somebody counts.
func TestPeersByLeastConnections(t *testing.T) {
	r := newRig(t, LeastConnections, Options{})
	nodes := map[byte]*node{1: r.peerOn(1), 2: r.peerOn(2), 3: r.peerOn(3)}
	got := map[uint64]int{}
	next := func(accepted bool) uint64 {
		n := r.offered(nodes)
		o := n.newconn()
		n.say(lineAck, o.answer(accepted))
		r.settle()
		if accepted {
			got[n.id]++
		}
		return n.id
	}
	for range 12 {
		r.dial()
		next(true)
	}
	for id := uint64(1); id <= 3; id++ {
		if got[id] != 4 {
			t.Errorf("of 12 connections worker %d has %d", id, got[id])
		}
	}
	r.d.SetOpen(1, 1, 7)
	r.d.SetOpen(1, 2, 1)
	r.d.SetOpen(1, 3, 5)
	for i := range 4 {
		if r.dial(); next(true) != 2 {
			t.Errorf("connection %d did not go to the one with the fewest", i)
		}
	}
	r.dial()
	if first, second := next(false), next(true); first == 1 || second == 1 || first == second {
		t.Errorf("went to %d, which refused, and to %d", first, second)
	}
}
