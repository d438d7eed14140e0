package steer

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
)

// rig is a group, its sockets and workers that accept when they are told to.
type rig struct {
	t       testing.TB
	g       *Group
	network string
	addr    string
	socks   []*fdpass.File
	workers []*fake
	clients []net.Conn
}

// fake is a worker: its page and the connections that it holds.
type fake struct {
	t     testing.TB
	sock  *fdpass.File
	page  *fdpass.File
	mem   []byte
	data  *counters
	conns []int
}

// newRig makes n sockets of one address and a group of them, of the mode asked for.
// Nobody is ready.
func newRig(t testing.TB, network string, mode Mode, n int) *rig {
	t.Helper()
	r := &rig{t: t, network: network}
	r.g = New(Options{Datagram: strings.HasPrefix(network, "udp"), NoBPF: mode == Hash})
	t.Cleanup(func() {
		r.hangUp()
		if err := r.g.Close(); err != nil {
			t.Error(err)
		}
		fdpass.CloseAll(r.socks)
	})
	if mode == Steered && r.g.Mode() != Steered {
		needBPF(t, r.g.Why())
	}
	for range n {
		r.bind(true)
	}
	for i := range r.socks {
		r.add(i)
	}
	return r
}

// needBPF skips a test where the kernel does not let us, which is no failure but on
// a machine of which we know that it does.
func needBPF(t testing.TB, why error) {
	t.Helper()
	if errors.Is(why, unix.EPERM) && !capBPF(t) {
		t.Skipf("needs CAP_BPF: %v", why)
	}
	t.Fatal(why)
}

// capBPF says whether we have the capability (39) as /proc/self/status shows it.
func capBPF(t testing.TB) bool {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, s, _ := strings.Cut(string(b), "CapEff:\t")
	var caps uint64
	if _, err := fmt.Sscanf(s, "%x", &caps); err != nil {
		t.Fatal(err)
	}
	return caps>>unix.CAP_BPF&1 == 1
}

// bind makes one more socket of the rig's address.
func (r *rig) bind(reuse bool) *fdpass.File {
	r.t.Helper()
	if r.addr == "" { // a port that is chosen for a socket is lost at its shutdown(2)
		r.addr = "?"
		probe := r.bind(true)
		r.socks, r.workers = nil, nil
		defer func() { _ = probe.Close() }()
	}
	family, host := unix.AF_INET, "127.0.0.1"
	if strings.HasSuffix(r.network, "6") {
		family, host = unix.AF_INET6, "::1"
	}
	kind := unix.SOCK_STREAM
	if strings.HasPrefix(r.network, "udp") {
		kind = unix.SOCK_DGRAM
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	r.must(err)
	r.must(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
	if reuse {
		r.must(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
	}
	at := netip.AddrPortFrom(netip.MustParseAddr(host), 0)
	if r.addr != "?" {
		at = netip.MustParseAddrPort(r.addr)
	}
	var sa unix.Sockaddr = &unix.SockaddrInet4{Port: int(at.Port()), Addr: [4]byte{127, 0, 0, 1}}
	if family == unix.AF_INET6 {
		sa = &unix.SockaddrInet6{Port: int(at.Port()), Addr: at.Addr().As16()}
	}
	r.must(unix.Bind(fd, sa))
	if kind == unix.SOCK_STREAM && r.addr != "?" {
		r.must(unix.Listen(fd, 4096))
	}
	got, err := unix.Getsockname(fd)
	r.must(err)
	switch s := got.(type) {
	case *unix.SockaddrInet4:
		r.addr = fmt.Sprintf("127.0.0.1:%d", s.Port)
	case *unix.SockaddrInet6:
		r.addr = fmt.Sprintf("[::1]:%d", s.Port)
	}
	f := fdpass.NewFile(fd)
	r.socks = append(r.socks, f)
	r.workers = append(r.workers, nil)
	return f
}

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// add adds a member, and waits for a predecessor's program to be freed.
func (r *rig) add(i int) {
	r.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; {
		err := r.g.Add(i, r.socks[i])
		if errors.Is(err, ErrBusy) && time.Now().Before(deadline) {
			time.Sleep(time.Millisecond)
			continue
		}
		r.must(err)
		return
	}
}

// worker starts a new worker in a slot, with a page of its own, not yet ready.
func (r *rig) worker(i int) *fake {
	r.t.Helper()
	page, err := r.g.NewPage()
	r.must(err)
	mem, err := unix.Mmap(page.Fd(), 0, pageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	r.must(err)
	f := &fake{t: r.t, sock: r.socks[i], page: page, mem: mem, data: (*counters)(unsafe.Pointer(&mem[0]))}
	r.workers[i] = f
	r.t.Cleanup(func() {
		f.close(len(f.conns))
		_ = page.Close()
		_ = unix.Munmap(mem)
	})
	return f
}

// serve starts workers in the slots, and they are ready.
func (r *rig) serve(slots ...int) {
	r.t.Helper()
	for _, i := range slots {
		r.must(r.g.Serve(i, r.worker(i).page))
	}
}

func (r *rig) serveAll() {
	r.t.Helper()
	for i := range r.socks {
		r.serve(i)
	}
}

// dial connects n clients, which stay.
func (r *rig) dial(n int) {
	r.t.Helper()
	for range n {
		c, err := net.DialTimeout(r.network, r.addr, 5*time.Second)
		r.must(err)
		r.clients = append(r.clients, c)
	}
}

func (r *rig) hangUp() {
	for _, c := range r.clients {
		_ = c.(*net.TCPConn).SetLinger(0) // leaves no port in TIME_WAIT
		_ = c.Close()
	}
	r.clients = nil
}

// drain lets the workers of the slots accept all that waits, all without slots.
func (r *rig) drain(slots ...int) {
	r.t.Helper()
	for i, w := range r.workers {
		if w != nil && (len(slots) == 0 || contains(slots, i)) {
			w.accept()
		}
	}
}

// spread dials n clients one after the other, and the slots accept at once.
func (r *rig) spread(n int, slots ...int) {
	r.t.Helper()
	for range n {
		r.dial(1)
		r.drain(slots...)
	}
}

// waiting returns how many connections are in each queue.
func (r *rig) waiting() []int64 {
	var q []int64
	for _, s := range r.socks {
		q = append(q, (&member{socket: s}).queue())
	}
	return q
}

// load returns what a member is judged by.
func (r *rig) load(i int) int64 {
	r.t.Helper()
	n, known := r.g.Load(i)
	if !known {
		r.t.Fatalf("the load of member %d is not known", i)
	}
	return n
}

func contains(list []int, n int) bool {
	for _, have := range list {
		if have == n {
			return true
		}
	}
	return false
}

// accept takes all that waits and counts it.
func (f *fake) accept() {
	for {
		fd, _, err := unix.Accept4(f.sock.Fd(), unix.SOCK_CLOEXEC)
		if errors.Is(err, unix.EAGAIN) {
			return
		}
		if err != nil {
			f.t.Fatal(err)
		}
		atomic.AddUint64(&f.data.accepted, 1)
		f.conns = append(f.conns, fd)
	}
}

// close ends n connections and counts it.
func (f *fake) close(n int) {
	for range n {
		_ = unix.Close(f.conns[0])
		f.conns = f.conns[1:]
		atomic.AddUint64(&f.data.closed, 1)
	}
}

// held returns how many connections each worker holds.
func (r *rig) held() []int {
	var n []int
	for _, w := range r.workers {
		if w == nil {
			n = append(n, 0)
		} else {
			n = append(n, len(w.conns))
		}
	}
	return n
}
