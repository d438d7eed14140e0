//go:build linux

package worker

import (
	"encoding/binary"
	"errors"
	"net"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
	"github.com/f72e338e/supervisord/internal/proto"
	"github.com/f72e338e/supervisord/internal/socket"
)

// membersOf makes sockets of one address, and a page.
func membersOf(t *testing.T, n int) (files []*fdpass.File, b proto.Bound, page []byte, pageFile *fdpass.File) {
	t.Helper()
	spec := proto.SocketSpec{Network: "tcp", Address: "127.0.0.1", ReusePort: true}
	for range n {
		f, bound, err := socket.Bind(spec)
		if err != nil {
			t.Fatal(err)
		}
		a, err := net.ResolveTCPAddr("tcp", bound.Address)
		if err != nil {
			t.Fatal(err)
		}
		spec.Port, b = a.Port, bound
		files = append(files, f)
	}
	fd, err := unix.MemfdCreate("page", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Ftruncate(fd, 4096); err != nil {
		t.Fatal(err)
	}
	page, err = unix.Mmap(fd, 0, 16, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Munmap(page) })
	return files, b, page, fdpass.NewFile(fd)
}

// grantedMembers gives a worker so many sockets of one handle.
func grantedMembers(t *testing.T, n int) (l net.Listener, m *master, w *Worker, files []*fdpass.File, page []byte) {
	t.Helper()
	w, m = joined(t)
	files, b, page, pageFile := membersOf(t, 2)
	t.Cleanup(func() { fdpass.CloseAll(files) })
	got := make(chan net.Listener, 1)
	go func() {
		l, err := w.Listen(t.Context(), "tcp", b.Address)
		if err != nil {
			t.Error(err)
		}
		got <- l
	}()
	e, _ := expect[proto.Listen](m)
	m.send(proto.Envelope{Re: e.ID, Body: proto.Grant{Handle: 7, Network: "tcp", Address: b.Address, Policy: proto.PolicyReusePort, Sockets: n}},
		append(append([]*fdpass.File{}, files[:n]...), pageFile)...)
	_ = pageFile.Close()
	l = <-got
	if l == nil {
		t.FailNow()
	}
	t.Cleanup(func() { _ = l.Close() })
	return l, m, w, files, page
}

// dialMany opens connections until both members must have had some.
func dialMany(t *testing.T, addr string, n int) (conns []net.Conn) {
	t.Helper()
	for range n {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		conns = append(conns, c)
	}
	return conns
}

// queuedOn tells how many connections wait on a listening socket, tcp(7).
func queuedOn(t *testing.T, f *fdpass.File) int {
	t.Helper()
	info, err := unix.GetsockoptTCPInfo(f.Fd(), unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		t.Fatal(err)
	}
	return int(info.Unacked)
}

func TestMembersAreAllAcceptedOn(t *testing.T) {
	l, _, w, _, page := grantedMembers(t, 2)
	const n = 64
	dialMany(t, l.Addr().String(), n)
	var own, spare []net.Conn
	for range n {
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if c.(*tcpConn).tally.spare {
			spare = append(spare, c)
		} else {
			own = append(own, c)
		}
	}
	count := func(i int) uint64 { return binary.NativeEndian.Uint64(page[8*i:]) }
	// The page is of the worker's own member: what comes on another's was not steered to it.
	if len(spare) == 0 || count(0) != uint64(len(own)) || count(1) != 0 || w.open.Load() != n {
		t.Errorf("%d of its own, %d others: accepted %d, closed %d, open %d", len(own), len(spare), count(0), count(1), w.open.Load())
	}
	_, _ = own[0].Close(), spare[0].Close()
	if count(0) != uint64(len(own)) || count(1) != 1 || w.open.Load() != n-2 {
		t.Errorf("after two were closed: accepted %d, closed %d, open %d", count(0), count(1), w.open.Load())
	}
}

// A member whose slot is back is left to it, with what is in its queue.
func TestMemberGoes(t *testing.T) {
	l, m, _, files, _ := grantedMembers(t, 2)
	conns := make(chan net.Conn, 64)
	var loop sync.WaitGroup
	loop.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns <- c
		}
	})
	m.send(proto.Envelope{Body: proto.Member{Handle: 7, Socket: 9, Gone: true}}) // which it does not have
	m.send(proto.Envelope{Body: proto.Member{Handle: 7, Socket: 1, Gone: true}})
	spares := &l.(*listener).spare
	eventually(t, "the spare is left", func() bool {
		spares.mu.Lock()
		defer spares.mu.Unlock()
		return len(spares.list) == 0
	})
	dialMany(t, l.Addr().String(), 64)
	eventually(t, "all are in a queue or were accepted", func() bool { return len(conns)+queuedOn(t, files[1]) == 64 })
	if queuedOn(t, files[1]) == 0 {
		t.Error("somebody accepts on the socket that was left")
	}
	_ = l.Close()
	loop.Wait()
}

// A member that comes later wakes who waits in Accept.
func TestMemberComesLater(t *testing.T) {
	l, m, _, files, _ := grantedMembers(t, 1)
	var waiting []net.Conn
	for i := 0; queuedOn(t, files[1]) == 0; i++ { // until one lands on the other member
		if i == 1000 {
			t.Fatal("the kernel gives the second member nothing")
		}
		waiting = append(waiting, dialMany(t, l.Addr().String(), 1)...)
	}
	got := make(chan error, len(waiting))
	go func() {
		for range waiting {
			_, err := l.Accept()
			got <- err
		}
	}()
	for range len(waiting) - 1 {
		if err := <-got; err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the first member empty", func() bool { return queuedOn(t, files[0]) == 0 })
	m.send(proto.Envelope{Body: proto.Member{Handle: 7}}, files[1])
	if err := <-got; err != nil {
		t.Fatal(err)
	}
	m.send(proto.Envelope{Body: proto.Member{Handle: 99}}, files[1]) // of nobody: closed, and no harm
	dialMany(t, l.Addr().String(), 1)
	if _, err := l.Accept(); err != nil {
		t.Fatal(err)
	}
}

// A server that drains takes what waits on all of its sockets.
func TestMembersAreEmptiedAtADrain(t *testing.T) {
	l, _, _, files, _ := grantedMembers(t, 2)
	const n = 40
	dialMany(t, l.Addr().String(), n)
	own := l.(*listener)
	own.retire()
	taken := 0
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		taken++
		_ = c.Close()
	}
	if left := queuedOn(t, files[0]) + queuedOn(t, files[1]); taken+left != n || left != 0 {
		t.Errorf("%d taken, %d left in the queues, of %d", taken, left, n)
	}
}

func TestMembersLeakNothing(t *testing.T) {
	noLeak(t)
	for range 5 {
		l, m, w, files, _ := grantedMembers(t, 2)
		dialMany(t, l.Addr().String(), 4)
		if _, err := l.Accept(); err != nil {
			t.Fatal(err)
		}
		m.send(proto.Envelope{Body: proto.Member{Handle: 7}}, files[1])
		_ = l.Close()
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Fatal(err)
		}
		_ = w.Close()
	}
}

// Look is for who waits in Accept: one that another was woken for, and did not take.
func TestLookWakes(t *testing.T) {
	w, m := joined(t)
	f, b := bound(t, "tcp", "127.0.0.1")
	l := m.granted(w, f, b, 3)
	if l.(*listener).turn == nil {
		t.Fatal("no turnstile")
	}
	got := accepted(l)
	eventually(t, "an exclusive registration", func() bool { return l.(*listener).isExclusive(t) })
	m.send(proto.Envelope{Body: proto.Look{Handle: 3}})
	m.send(proto.Envelope{Body: proto.Look{Handle: 4}}) // of nobody
	dialMany(t, b.Address, 1)
	if err := <-got; err != nil {
		t.Fatal(err)
	}
}

// A socket that another holder has shut down is waited for: the supervisor mends it.
func TestShutSocketIsWaitedFor(t *testing.T) {
	w, m := joined(t)
	f, b := bound(t, "tcp", "127.0.0.1")
	own, err := f.Dup()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = own.Close() })
	l := m.granted(w, f, b, 3)
	got := accepted(l)
	eventually(t, "an exclusive registration", func() bool { return l.(*listener).isExclusive(t) })
	if err := unix.Shutdown(own.Fd(), unix.SHUT_RDWR); err != nil {
		t.Fatal(err)
	}
	if _, _, err := socket.Mend(own.Fd(), "tcp", b); err != nil {
		t.Fatal(err)
	}
	dialMany(t, b.Address, 1)
	if err := <-got; err != nil {
		t.Fatal(err)
	}
	// Nobody mends it, and the worker leaves.
	got = accepted(l)
	if err := unix.Shutdown(own.Fd(), unix.SHUT_RDWR); err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	if err := <-got; !errors.Is(err, net.ErrClosed) {
		t.Fatal(err)
	}
}

// With as many connections as the pool allows a worker takes no more, on any of its
// listeners, until one has gone.
func TestMaxConnections(t *testing.T) {
	w, m := joined(t)
	id := *w.identity.Load()
	id.MaxConnections = 2
	w.identity.Store(&id)
	f, b := bound(t, "tcp", "127.0.0.1")
	l := m.granted(w, f, b, 3)
	f2, b2 := bound(t, "tcp", "127.0.0.1")
	l2 := m.granted(w, f2, b2, 4)
	dialMany(t, b.Address, 2)
	dialMany(t, b2.Address, 1)
	first, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l2.Accept(); err != nil {
		t.Fatal(err)
	}
	third := accepted(l)
	eventually(t, "Accept to wait for room", func() bool { w.room.mu.Lock(); defer w.room.mu.Unlock(); return w.room.freed != nil })
	if l.(*listener).isExclusive(t) {
		t.Error("a worker without room is woken for connections")
	}
	select {
	case err := <-third:
		t.Fatalf("a third connection: %v", err)
	default:
	}
	_ = first.Close()
	if err := <-third; err != nil {
		t.Fatal(err)
	}
	// Full again, and closed while it waits.
	dialMany(t, b.Address, 1)
	if _, err := l.Accept(); err != nil {
		t.Fatal(err)
	}
	last := accepted(l)
	eventually(t, "Accept to wait for room", func() bool { w.room.mu.Lock(); defer w.room.mu.Unlock(); return w.room.freed != nil })
	_ = l.Close()
	if err := <-last; !errors.Is(err, net.ErrClosed) {
		t.Fatal(err)
	}
}

// Of what waits on a spare, a worker whose program takes nothing accepts one.
func TestSpareIsNotEmptiedUnasked(t *testing.T) {
	l, _, _, files, _ := grantedMembers(t, 2)
	const n = 64
	dialMany(t, l.Addr().String(), n)
	own := l.(*listener)
	eventually(t, "a connection of the spare", own.spare.any)
	if first := queuedOn(t, files[0]); queuedOn(t, files[1]) != n-first-1 {
		t.Errorf("%d and %d are left of %d, and nobody took any", first, queuedOn(t, files[1]), n)
	}
}

// What the configuration turns off stays off, though the net package turns it on.
func TestAcceptedOptions(t *testing.T) {
	w, m := joined(t)
	f, b := bound(t, "tcp", "127.0.0.1")
	off := false
	for _, test := range []struct {
		grant proto.Grant
		want  int
	}{
		{proto.Grant{Handle: 7}, 1},
		{proto.Grant{Handle: 8, NoDelay: &off, KeepAlive: &off}, 0},
	} {
		got := make(chan net.Listener, 1)
		go func() {
			l, err := w.Listen(t.Context(), "tcp", b.Address)
			if err != nil {
				t.Error(err)
			}
			got <- l
		}()
		e, _ := until(m, anyOf[proto.Listen])
		test.grant.Network, test.grant.Address, test.grant.Backlog = "tcp", b.Address, b.Backlog
		m.send(proto.Envelope{Re: e.ID, Body: test.grant}, f)
		l := <-got
		if l == nil {
			t.FailNow()
		}
		dialMany(t, b.Address, 1)
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		raw, err := c.(*tcpConn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		_ = raw.Control(func(fd uintptr) {
			noDelay, _ := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NODELAY)
			keepAlive, _ := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_KEEPALIVE)
			if noDelay != test.want || keepAlive != test.want {
				t.Errorf("%+v: TCP_NODELAY %d, SO_KEEPALIVE %d", test.grant, noDelay, keepAlive)
			}
		})
		_, _ = c.Close(), l.Close()
		until(m, anyOf[proto.Close])
	}
}
