package dispatch

import (
	"fmt"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
	"github.com/f72e338e/supervisord/internal/proto"
)

// world is a dispatcher, what it serves and who works for it, as FuzzDispatcher
// knows them. Members are driven by one goroutine with raw descriptors, so that
// the same bytes do the same.
type world struct {
	t       testing.TB
	d       *Dispatcher
	tcp     bool
	batch   int
	before  int // descriptors of the process
	cpu     int64
	ops     int
	handles []*place
	members []*player
	clients []*client
	workers uint64
}

// place is a handle.
type place struct {
	id      uint64
	addr    unix.Sockaddr
	removed bool
	passed  uint64 // connections that members passed on
}

// player is a worker's end of a channel.
type player struct {
	at       *place
	worker   uint64
	tag      byte // what it writes to whom it accepted
	fd       int  // -1: it is gone
	page     []byte
	admitted bool
	full     bool
	dead     bool // and the dispatcher has not heard of it
	lawful   bool // it has kept to the protocol
	leftover bool // a message was there when it stopped being free
	passing  bool // passes on what it reads
	limit    int64
	got      int64 // connections that it has read
	closed   int64 // connections that it says it has closed
	owned    []*handed
}

// handed is a member's connection.
type handed struct {
	c  *client
	fd int
}

// client is one connection from its other end.
type client struct {
	n     int
	at    *place
	fd    int // -1: it hung up
	owner *player
}

const (
	maxClients = 80
	maxMembers = 16 // two more come at the end
)

// newWorld begins with two handles. kind: 0 Unix sockets, where every effect is
// there when the system call returns, or 1 TCP.
func newWorld(t testing.TB, kind, policy, batch byte) *world {
	time.NewTimer(time.Hour).Stop() // or the runtime opens its epoll set at some time later
	w := &world{t: t, tcp: kind%8 == 1, batch: int(batch)%16 + 1, before: openFiles(t)}
	d, err := New(Options{Batch: w.batch})
	if err != nil {
		t.Fatal(err)
	}
	w.d = d
	t.Cleanup(d.Close)                      // a script that fails leaves it, and it holds a processor
	d.do(func() { d.patience = time.Hour }) // see lapse
	w.cpu = w.threadTime()
	for id := range uint64(2) {
		family := unix.AF_UNIX
		addr := unix.Sockaddr(&unix.SockaddrUnix{})
		if w.tcp {
			family, addr = unix.AF_INET, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
		}
		fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		w.must(err)
		w.must(unix.Bind(fd, addr)) // an abstract name, or a port, of the kernel's choice
		w.must(unix.Listen(fd, 2*maxClients))
		p := &place{id: id + 1}
		p.addr, err = unix.Getsockname(fd)
		w.must(err)
		d.Add(p.id, Policy(int(policy)%3+1))
		w.must(d.AddSocket(p.id, fdpass.NewFile(fd)))
		w.handles = append(w.handles, p)
	}
	return w
}

func (w *world) must(err error) {
	if err != nil {
		w.t.Helper()
		w.t.Fatal(err)
	}
}

// threadTime is the CPU time of the dispatcher's thread, in nanoseconds.
func (w *world) threadTime() (ns int64) {
	w.d.do(func() {
		var ts unix.Timespec
		_ = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts)
		ns = ts.Nano()
	})
	return ns
}

func (w *world) place(arg int) *place { return w.handles[arg%len(w.handles)] }

// player returns one of those that live, or nil.
func (w *world) player(arg int) *player {
	var list []*player
	for _, m := range w.members {
		if m.fd >= 0 && !m.dead {
			list = append(list, m)
		}
	}
	if len(list) == 0 {
		return nil
	}
	return list[arg%len(list)]
}

// join: bit 0 the handle, bit 1-2 the slot, bit 3 not admitted, bit 4 without a
// page, bit 5 with a limit, bit 7 as the worker that joined last.
func (w *world) join(arg int) {
	p := w.place(arg)
	if len(w.members) >= maxMembers || p.removed {
		return
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	w.must(err)
	if arg&128 == 0 || w.workers == 0 {
		w.workers++
	}
	m := &player{at: p, worker: w.workers, tag: byte(len(w.members) + 1), fd: pair[1], admitted: arg&8 == 0, lawful: true}
	far, err := fdpass.NewFile(m.fd).Dup()
	w.must(err)
	var page *fdpass.File
	if arg&16 == 0 {
		page, err = fdpass.NewPage("count")
		w.must(err)
		m.page, err = unix.Mmap(page.Fd(), 0, 16, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		w.must(err)
	}
	if arg&32 != 0 && m.page != nil {
		m.limit = 3
	}
	w.must(w.d.Join(p.id, Member{Worker: m.worker, Slot: arg >> 1 & 3, Limit: m.limit, Channel: fdpass.NewFile(pair[0]), Far: far, Page: page, Admitted: m.admitted}))
	w.members = append(w.members, m)
}

func (w *world) connect(arg int) {
	p := w.place(arg)
	if len(w.clients) >= maxClients || p.removed {
		return
	}
	family := unix.AF_UNIX
	if w.tcp {
		family = unix.AF_INET
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	w.must(err)
	if w.tcp {
		w.must(unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 1, byte(arg)}}))
	}
	c := &client{n: len(w.clients), at: p, fd: fd}
	w.must(unix.Connect(fd, p.addr))
	_, err = unix.Write(fd, []byte{byte(c.n)}) // says who it is to whoever gets it
	w.must(err)
	w.clients = append(w.clients, c)
}

// crowd connects some at once.
func (w *world) crowd(arg int) {
	for range arg/2%32 + 1 {
		w.connect(arg)
	}
}

// read lets a member read one message, if there is one: what comes with it is its
// own by that.
func (w *world) read(arg int) {
	if m := w.player(arg); m != nil {
		w.receive(m)
	}
}

func (w *world) receive(m *player) bool {
	var data [proto.HandoverSize + 1]byte
	var oob [512]byte
	n, oobn, flags, _, err := unix.Recvmsg(m.fd, data[:], oob[:], unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
	if err == unix.EAGAIN || err == unix.ECONNRESET || err == nil && n == 0 {
		if err != unix.EAGAIN && m.lawful && !m.at.removed {
			w.t.Fatalf("the channel of member %d was ended: %v", m.tag, err)
		}
		return false
	}
	w.must(err)
	h, err := proto.ReadHandover(data[:n])
	w.must(err)
	var fds []int
	if messages, err := unix.ParseSocketControlMessage(oob[:oobn]); err == nil && len(messages) == 1 {
		fds, _ = unix.ParseUnixRights(&messages[0])
	}
	switch {
	case flags&(unix.MSG_CTRUNC|unix.MSG_TRUNC) != 0, len(fds) != h.Count, len(fds) > w.batch:
		w.t.Fatalf("member %d: message %+v with %d files, flags %#x", m.tag, h, len(fds), flags)
	case !m.lawful && !m.at.removed && len(fds) > 0:
		w.t.Fatalf("member %d has no channel any more, and got %d", m.tag, len(fds))
	case m.lawful && !m.at.removed && !m.leftover && (!m.admitted || m.full):
		w.t.Fatalf("member %d: got %d, admitted %v, full %v", m.tag, len(fds), m.admitted, m.full)
	}
	m.leftover = false
	m.got += int64(len(fds))
	for _, fd := range fds {
		if m.passing && !m.at.removed && !m.dead {
			w.passOn(m, fd)
			continue
		}
		h := &handed{c: w.identify(m, fd), fd: fd}
		h.c.owner = m
		var b [1]byte
		_, _ = unix.Read(h.fd, b[:]) // what is closed unread ends in a reset
		_, _ = unix.Write(h.fd, []byte{m.tag})
		m.owned = append(m.owned, h)
	}
	return true
}

// identify finds whose connection it is, and that it is in no other hands.
func (w *world) identify(m *player, fd int) *client {
	var b [4]byte
	n, _, err := unix.Recvfrom(fd, b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	if n != 1 || err != nil || int(b[0]) >= len(w.clients) {
		w.t.Fatalf("member %d: a connection that says %v, %v: somebody has read from it", m.tag, b[:max(n, 0)], err)
	}
	c := w.clients[b[0]]
	if c.owner != nil {
		w.t.Fatalf("client %d of member %d came to member %d", c.n, c.owner.tag, m.tag)
	}
	return c
}

// send sends a packet on a member's channel, and reports whether anybody has it.
func (w *world) send(m *player, data, oob []byte) bool {
	err := unix.Sendmsg(m.fd, data, oob, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	if err != nil && m.lawful && !m.at.removed {
		w.t.Fatalf("member %d cannot answer: %v", m.tag, err)
	}
	return err == nil
}

func (w *world) say(m *player, what proto.Standing) bool {
	b := make([]byte, proto.HandoverSize)
	what.Put(b)
	return w.send(m, b, nil)
}

// count is what a member says of the connections that it accepted itself.
func (m *player) count(n int64) {
	if m.page != nil {
		*(*int64)(unsafe.Pointer(&m.page[0])) = n
	}
}

func (m *player) String() string {
	return fmt.Sprintf("member %d of handle %d: admitted %v, full %v, lawful %v, %d owned", m.tag, m.at.id, m.admitted, m.full, m.lawful, len(m.owned))
}
