package dispatch

import (
	"net"
	"sync"
	"testing"

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
		r.leave(f)
	}
	wg.Wait()
}

// TestBusyGetsNothingMore: a worker that is stopped gets one hand-over. What came
// with it goes to another, and it finds nothing of it when it goes on.
func TestBusyGetsNothingMore(t *testing.T) {
	r := newRig(t, RoundRobin, Options{})
	stopped, other := r.join(1, 0), r.join(2, 1)
	var wg sync.WaitGroup
	other.serve(&wg)
	for range 21 {
		if got := r.ask(); got != 2 {
			t.Fatalf("answered by %d", got)
		}
	}
	if accepted, handed, returned := r.d.Counts(1); accepted != 21 || handed != 21 || returned != 1 {
		t.Errorf("%d accepted, %d handed over, %d returned", accepted, handed, returned)
	}
	if n, err := stopped.take(); n != 0 || err != nil {
		t.Fatalf("the busy one read %d connections: %v", n, err)
	}
	r.patient()
	first := r.dial()
	r.accepted(22) // each by itself, or both come to the one that has some to catch up with
	second := r.dial()
	r.accepted(23)
	if n, err := stopped.take(); n != 1 || err != nil {
		t.Errorf("it has time again and got %d connections: %v", n, err)
	}
	if a, b := who(t, first), who(t, second); a == b {
		t.Errorf("answered by %d and %d", a, b)
	}
	r.leave(other)
	wg.Wait()
}

// TestNobodyFreeLeavesThemInTheKernel: what nobody takes waits there, however late
// the one is that has a hand-over unread.
func TestNobodyFreeLeavesThemInTheKernel(t *testing.T) {
	r := newRig(t, RoundRobin, Options{})
	f := r.join(1, 0)
	conns := []net.Conn{r.dial()}
	r.accepted(1)
	for range 9 {
		conns = append(conns, r.dial())
	}
	r.late()
	if accepted, _, _ := r.d.Counts(1); accepted != 1 {
		t.Errorf("%d connections were accepted while nobody could take them", accepted)
	}
	for _, want := range []int{1, 9} {
		if n, err := f.take(); n != want || err != nil {
			t.Errorf("%d connections in a message, want %d: %v", n, want, err)
		}
	}
	for _, c := range conns {
		who(t, c)
	}
}

// TestFull: what a worker that is full has not read goes to another, and it gets no
// more until it has room.
func TestFull(t *testing.T) {
	r := newRig(t, RoundRobin, Options{})
	r.patient()
	full := r.join(1, 0)
	c := r.dial()
	r.accepted(1)
	full.say(proto.Full)
	other := r.join(2, 1)
	for range 6 {
		if _, err := other.take(); err != nil {
			t.Fatal(err)
		}
		if got := who(t, c); got != 2 {
			t.Errorf("answered by %d", got)
		}
		c = r.dial()
	}
	if _, err := other.take(); err != nil {
		t.Fatal(err)
	}
	who(t, c)
	full.say(proto.Room)
	r.settle()
	c = r.dial()
	if _, err := full.take(); err != nil {
		t.Fatal(err)
	}
	if got := who(t, c); got != 1 {
		t.Errorf("after it had room again, answered by %d", got)
	}
}

// TestWorkerThatDies: what it had not read goes to another, what it had is gone with
// it, and nothing is served twice.
func TestWorkerThatDies(t *testing.T) {
	r := newRig(t, RoundRobin, Options{})
	r.patient()
	dying := r.join(1, 0)
	lost := r.dial()
	files, err := dying.read()
	if err != nil {
		t.Fatal(err)
	}
	c := r.dial()
	r.accepted(2)
	other := r.join(2, 1)
	fdpass.CloseAll(files)
	r.leave(dying)
	if _, err := other.take(); err != nil {
		t.Fatal(err)
	}
	if got := who(t, c); got != 2 {
		t.Errorf("answered by %d", got)
	}
	if accepted, handed, returned := r.d.Counts(1); accepted != 2 || handed != 2 || returned != 1 {
		t.Errorf("accepted %d, handed %d, returned %d", accepted, handed, returned)
	}
	if n, err := lost.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("what it had accepted is answered by somebody: %d, %v", n, err)
	}
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

// TestAdmitNoMore: what a worker has not read when it is told to go is another's, if
// there is another; else it stays where it is.
func TestAdmitNoMore(t *testing.T) {
	r := newRig(t, RoundRobin, Options{})
	r.patient()
	going := r.join(1, 0)
	c := r.dial()
	r.accepted(1)
	r.d.Admit(1, false)
	if n, err := going.take(); n != 1 || err != nil {
		t.Fatalf("the only worker reads %d: %v", n, err)
	}
	who(t, c)
	r.d.Admit(1, true)
	c = r.dial()
	r.accepted(2)
	other := r.join(2, 1)
	r.d.Admit(1, false)
	if n, err := other.take(); n != 1 || err != nil {
		t.Fatalf("the other reads %d: %v", n, err)
	}
	who(t, c)
}

func TestLeastConnections(t *testing.T) {
	r := newRig(t, LeastConnections, Options{})
	a, b := r.join(1, 0), r.join(2, 1)
	take := func(from *fake) {
		t.Helper()
		c := r.dial()
		if _, err := from.take(); err != nil {
			t.Fatal(err)
		}
		if got := who(t, c); got != byte(from.id) {
			t.Fatalf("answered by %d", got)
		}
		from.page[1]++
	}
	a.page[0], b.page[0] = 5, 3
	for range 10 {
		take(b)
	}
	a.page[0] = 0
	take(a)
	a.page[1] = 1 << 62 // says that it has closed what nobody had
	take(a)
}

func TestSourceHash(t *testing.T) {
	r := newRig(t, SourceHash, Options{})
	r.patient()
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
		r.leave(f)
	}
	wg.Wait()
}
