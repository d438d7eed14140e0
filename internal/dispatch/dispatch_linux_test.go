package dispatch

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
	"github.com/f72e338e/supervisord/internal/proto"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a dispatcher on a loopback port.
type rig struct {
	t    testing.TB
	d    *Dispatcher
	addr string
}

func newRig(t testing.TB, policy Policy, o Options) *rig {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 511); err != nil {
		t.Fatal(err)
	}
	sa, _ := unix.Getsockname(fd)
	d, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	if err := d.Add(1, fdpass.NewFile(fd), policy); err != nil {
		t.Fatal(err)
	}
	return &rig{t, d, fmt.Sprintf("127.0.0.1:%d", sa.(*unix.SockaddrInet4).Port)}
}

// fake is a worker's end of a channel, driven by the test.
type fake struct {
	t    testing.TB
	id   uint64
	ch   *fdpass.Conn
	page []byte
}

func (r *rig) join(id uint64, slot int) *fake {
	r.t.Helper()
	near, far, err := fdpass.Pair()
	if err != nil {
		r.t.Fatal(err)
	}
	end, err := near.Detach()
	if err != nil {
		r.t.Fatal(err)
	}
	mem, err := unix.MemfdCreate("count", unix.MFD_CLOEXEC)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := unix.Ftruncate(mem, 4096); err != nil {
		r.t.Fatal(err)
	}
	f := &fake{t: r.t, id: id, ch: far}
	if f.page, err = unix.Mmap(mem, 0, 8, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = far.Close(); _ = unix.Munmap(f.page) })
	if err := r.d.Join(1, id, slot, end, fdpass.NewFile(mem), true); err != nil {
		r.t.Fatal(err)
	}
	return f
}

// read takes the next hand-over without a verdict.
func (f *fake) read() (proto.Handover, []*fdpass.File, error) {
	buf := make([]byte, 64)
	n, files, err := f.ch.Recv(buf, proto.MaxHandover)
	if err != nil {
		return proto.Handover{}, nil, err
	}
	h, err := proto.ReadHandover(buf[:n])
	if err == nil && int(h.Count) != len(files) {
		err = fmt.Errorf("hand-over of %d with %d files", h.Count, len(files))
	}
	return h, files, err
}

func (f *fake) say(v proto.Verdict) {
	b := make([]byte, proto.HandoverSize)
	v.Put(b)
	_ = f.ch.Send(b)
}

// take accepts the next hand-over and answers each connection with its id.
func (f *fake) take() (int, error) {
	h, files, err := f.read()
	if err != nil {
		return 0, err
	}
	f.say(proto.Verdict{First: h.First, Count: h.Count, What: proto.Accepted})
	for _, file := range files {
		_, _ = unix.Write(file.Fd(), []byte{byte(f.id)})
		_ = file.Close()
	}
	return len(files), nil
}

// serve takes hand-overs until its channel ends.
func (f *fake) serve(wg *sync.WaitGroup) {
	wg.Add(1)
	go func() {
		defer wg.Done()
		for {
			if _, err := f.take(); err != nil {
				return
			}
		}
	}()
}

func (r *rig) dial() net.Conn {
	r.t.Helper()
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	return c
}

// who returns the id of the worker that answers.
func who(t testing.TB, c net.Conn) byte {
	t.Helper()
	defer func() { _ = c.Close() }()
	b, err := io.ReadAll(c)
	if err != nil || len(b) != 1 {
		t.Fatalf("answer %v, %v", b, err)
	}
	return b[0]
}

func (r *rig) ask() byte { r.t.Helper(); return who(r.t, r.dial()) }

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

// TestHostile: whatever a worker says on its channel, it loses at most its own.
func TestHostile(t *testing.T) {
	var reported atomic.Int64
	r := newRig(t, RoundRobin, Options{Report: func(_, worker uint64, err error) {
		if worker != 9 {
			reported.Add(1)
		}
	}})
	good := r.join(9, 0)
	var wg sync.WaitGroup
	good.serve(&wg)
	for i := range 200 {
		bad := r.join(uint64(100+i), 1)
		b := make([]byte, rand.IntN(20)+1)
		for j := range b {
			b[j] = byte(rand.IntN(4))
		}
		_ = bad.ch.Send(b)
		_ = bad.ch.Send([]byte{0, 0, 0, 0, 1, 0, 1, 0}) // accepts what it was not given
		if i%2 == 0 {
			_ = bad.ch.Close()
		}
		r.d.Leave(1, uint64(100+i))
	}
	for range 50 {
		if got := r.ask(); got != 9 {
			t.Fatalf("answered by %d", got)
		}
	}
	if reported.Load() == 0 {
		t.Error("no worker was reported")
	}
	_ = good.ch.Close()
	wg.Wait()
}

// TestNothingLostNothingTwice: workers come, refuse, die and leave all the time,
// and every connection is answered exactly once.
func TestNothingLostNothingTwice(t *testing.T) {
	before := openFiles(t)
	r := newRig(t, RoundRobin, Options{Batch: 8})
	anchor := r.join(1, 0)
	var wg sync.WaitGroup
	anchor.serve(&wg)
	stop := make(chan struct{})
	wg.Add(1)
	go func() {
		defer wg.Done()
		for id := uint64(2); ; id++ {
			select {
			case <-stop:
				return
			default:
			}
			f := r.join(id%200+2, int(id%7))
			for range rand.IntN(4) {
				h, files, err := f.read()
				if err != nil {
					break
				}
				if rand.IntN(3) == 0 { // dies with it, before it said anything
					fdpass.CloseAll(files)
					break
				}
				f.say(proto.Verdict{First: h.First, Count: h.Count, What: proto.Accepted})
				for _, file := range files {
					_, _ = unix.Write(file.Fd(), []byte{2})
					_ = file.Close()
				}
			}
			_ = f.ch.Close()
		}
	}()
	var clients sync.WaitGroup
	var answered atomic.Int64
	for range 8 {
		clients.Add(1)
		go func() {
			defer clients.Done()
			for range 250 {
				c, err := net.Dial("tcp", r.addr)
				if err != nil {
					t.Error(err)
					return
				}
				_ = c.SetDeadline(time.Now().Add(20 * time.Second))
				b, err := io.ReadAll(c)
				if err != nil || len(b) != 1 {
					t.Errorf("answer %v, %v", b, err)
					return
				}
				answered.Add(1)
				_ = c.Close()
			}
		}()
	}
	clients.Wait()
	close(stop)
	c := r.dial() // wakes the goroutine that reads, should it wait for one
	_ = c.Close()
	_ = anchor.ch.Close()
	r.d.Close()
	wg.Wait()
	if answered.Load() != 2000 {
		t.Errorf("%d of 2000 answered", answered.Load())
	}
	if after := openFiles(t); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

func openFiles(t testing.TB) int {
	t.Helper()
	e, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(e)
}
