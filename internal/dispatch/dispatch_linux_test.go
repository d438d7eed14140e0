package dispatch

import (
	"net"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
	"github.com/f72e338e/supervisord/internal/proto"
)

func TestRoundRobinIsStrict(t *testing.T) {
	r := newRig(t, RoundRobin, Options{})
	var wg sync.WaitGroup
	fakes := []*fake{r.join(1, 0), r.join(2, 1), r.join(3, 2)}
	for _, f := range fakes {
		f.serve(&wg)
	}
	for i := range 30 {
		if got, want := r.ask(), byte(i%3+1); got != want {
			t.Fatalf("connection %d went to %d, want %d", i, got, want)
		}
	}
	for _, f := range fakes {
		_ = f.ch.Close()
	}
	wg.Wait()
}

func TestBusyGetsNothingMore(t *testing.T) {
	r := newRig(t, RoundRobin, Options{})
	stopped, other := r.join(1, 0), r.join(2, 1)
	var wg sync.WaitGroup
	other.serve(&wg)
	first := r.dial() // to the one that never answers
	for range 20 {
		if got := r.ask(); got != 2 {
			t.Fatalf("answered by %d", got)
		}
	}
	if n, err := stopped.take(); n != 1 || err != nil {
		t.Fatalf("the busy one was sent %d connections: %v", n, err)
	}
	if got := who(t, first); got != 1 {
		t.Errorf("what the busy one had was answered by %d", got)
	}
	_ = other.ch.Close()
	wg.Wait()
}

func TestNobodyFreeLeavesThemInTheKernel(t *testing.T) {
	r := newRig(t, RoundRobin, Options{})
	f := r.join(1, 0)
	conns := []net.Conn{r.dial()}
	h, files, err := f.read()
	if err != nil || len(files) != 1 {
		t.Fatal(err, files)
	}
	for range 9 {
		conns = append(conns, r.dial())
	}
	if accepted, _, _ := r.d.Counts(1); accepted != 1 {
		t.Errorf("%d connections were accepted while nobody could take them", accepted)
	}
	f.say(proto.Verdict{First: h.First, Count: 1, What: proto.Accepted})
	_, _ = unix.Write(files[0].Fd(), []byte{1})
	_ = files[0].Close()
	n, err := f.take()
	if n != 9 || err != nil {
		t.Errorf("what had waited came as %d in the next message: %v", n, err)
	}
	for _, c := range conns {
		who(t, c)
	}
}

func TestRefusedGoesToAnother(t *testing.T) {
	r := newRig(t, RoundRobin, Options{})
	full, other := r.join(1, 0), r.join(2, 1)
	c := r.dial()
	h, files, err := full.read()
	if err != nil {
		t.Fatal(err)
	}
	fdpass.CloseAll(files)
	full.say(proto.Verdict{First: h.First, Count: h.Count, What: proto.Refused})
	if _, err := other.take(); err != nil {
		t.Fatal(err)
	}
	if got := who(t, c); got != 2 {
		t.Errorf("answered by %d", got)
	}
	for range 5 { // it is full until it says otherwise
		c := r.dial()
		if _, err := other.take(); err != nil {
			t.Fatal(err)
		}
		who(t, c)
	}
	full.say(proto.Verdict{What: proto.Room})
	c = r.dial()
	if _, err := full.take(); err != nil {
		t.Fatal(err)
	}
	if got := who(t, c); got != 1 {
		t.Errorf("after it had room again, answered by %d", got)
	}
}

// TestWorkerThatDies: what it had not accepted goes to another, what it had is gone
// with it, and nothing is served twice.
func TestWorkerThatDies(t *testing.T) {
	r := newRig(t, RoundRobin, Options{})
	dying, other := r.join(1, 0), r.join(2, 1)
	c := r.dial()
	_, files, err := dying.read() // received, no verdict
	if err != nil {
		t.Fatal(err)
	}
	fdpass.CloseAll(files)
	_ = dying.ch.Close()
	if _, err := other.take(); err != nil {
		t.Fatal(err)
	}
	if got := who(t, c); got != 2 {
		t.Errorf("answered by %d", got)
	}
	if _, handed, returned := r.d.Counts(1); handed != 1 || returned != 1 {
		t.Errorf("handed %d, returned %d", handed, returned)
	}
}

func TestLeaveReadsTheVerdictFirst(t *testing.T) {
	r := newRig(t, RoundRobin, Options{})
	f, other := r.join(1, 0), r.join(2, 1)
	c := r.dial()
	h, files, err := f.read()
	if err != nil {
		t.Fatal(err)
	}
	f.say(proto.Verdict{First: h.First, Count: h.Count, What: proto.Accepted})
	r.d.Leave(0, 1)
	_, _ = unix.Write(files[0].Fd(), []byte{1})
	fdpass.CloseAll(files)
	if got := who(t, c); got != 1 {
		t.Errorf("answered by %d", got)
	}
	if _, handed, returned := r.d.Counts(1); handed != 1 || returned != 0 {
		t.Errorf("handed %d, returned %d", handed, returned)
	}
	_ = other.ch.Close()
}

func TestAdmit(t *testing.T) {
	r := newRig(t, RoundRobin, Options{})
	f := r.join(1, 0)
	r.d.Admit(1, false)
	c := r.dial()
	if accepted, _, _ := r.d.Counts(1); accepted != 0 {
		t.Errorf("%d accepted for a worker that is not admitted", accepted)
	}
	r.d.Admit(1, true)
	if _, err := f.take(); err != nil {
		t.Fatal(err)
	}
	who(t, c)
}

func TestLeastConnections(t *testing.T) {
	r := newRig(t, LeastConnections, Options{})
	a, b := r.join(1, 0), r.join(2, 1)
	a.page[0], b.page[0] = 5, 3
	for range 10 {
		c := r.dial()
		if _, err := b.take(); err != nil {
			t.Fatal(err)
		}
		who(t, c)
	}
	a.page[0] = 0
	c := r.dial()
	if _, err := a.take(); err != nil {
		t.Fatal(err)
	}
	who(t, c)
	a.page[7] = 0x80 // a worker that says it has a negative number of connections
	c = r.dial()
	if _, err := a.take(); err != nil {
		t.Fatal(err)
	}
	who(t, c)
}

func TestSourceHash(t *testing.T) {
	r := newRig(t, SourceHash, Options{})
	var wg sync.WaitGroup
	fakes := []*fake{r.join(1, 0), r.join(2, 1), r.join(3, 2)}
	for _, f := range fakes {
		f.serve(&wg)
	}
	from := func(i int) byte {
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(i))}}
		c, err := dialer.Dial("tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		return who(t, c)
	}
	seen := map[byte]int{}
	for i := range 60 {
		first := from(i + 1)
		seen[first]++
		if again := from(i + 1); again != first {
			t.Errorf("client %d went to %d, then to %d", i, first, again)
		}
	}
	for id := byte(1); id <= 3; id++ {
		if seen[id] < 10 {
			t.Errorf("of 60 clients worker %d has %d", id, seen[id])
		}
	}
	for _, f := range fakes {
		_ = f.ch.Close()
	}
	wg.Wait()
}
