package master

import (
	"errors"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
	"github.com/f72e338e/supervisord/internal/core"
	"github.com/f72e338e/supervisord/internal/proto"
	"github.com/f72e338e/supervisord/internal/socket"
	"github.com/f72e338e/supervisord/internal/steer"
)

// group is the sockets of a reuse_port handle, and what steers connections to
// them. The first is the handle's own. They stay open as long as the handle does:
// what is in the queue of one that is closed would be reset.
//
// What the kernel is asked for here can take it a while (it waits until no
// processor uses an old map), so a goroutine does it. The loop tells that one what
// to do, in order, and does not wait.
type group struct {
	m    *Master
	id   proto.HandleID
	addr string

	mu     sync.Mutex
	queue  []func()
	ended  bool
	how    string         // connections are steered: "" as long as that is not known
	files  []*fdpass.File // by member; nil where one could not be made. The goroutine changes them
	signal chan struct{}  // capacity 1: there is something in the queue

	// Of the goroutine alone:
	steer   *steer.Group
	serving map[int]proto.WorkerID
	members map[proto.WorkerID]*membership
	handed  int       // so many of files the dispatcher has
	seen    core.Time // when all of them were last found in order
}

// membership is the member that a worker has for itself, and the page in which it
// counts.
type membership struct {
	member int
	page   *fdpass.File
}

// newGroup starts a group with the handle's socket, which it takes.
func newGroup(m *Master, id proto.HandleID, addr string, first *fdpass.File, o steer.Options) *group {
	g := &group{m: m, id: id, addr: addr, signal: make(chan struct{}, 1), files: []*fdpass.File{first},
		serving: map[int]proto.WorkerID{}, members: map[proto.WorkerID]*membership{}, handed: 1}
	m.pumps.Add(1)
	go g.run()
	g.do(func() { g.begin(o) })
	return g
}

// do lets the goroutine do something, after all that it was told before. The queue
// is as long as what workers ask for, each of them once.
func (g *group) do(fn func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ended {
		return
	}
	g.queue = append(g.queue, fn)
	select {
	case g.signal <- struct{}{}:
	default:
	}
}

// close ends the group after what it was told before, and closes its sockets.
func (g *group) close() {
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ended = true
	select {
	case g.signal <- struct{}{}:
	default:
	}
}

func (g *group) run() {
	defer g.m.pumps.Done()
	for ended := false; !ended; {
		<-g.signal
		g.mu.Lock()
		queue := g.queue
		g.queue, ended = nil, g.ended
		g.mu.Unlock()
		for _, fn := range queue {
			fn()
		}
	}
	_ = g.steer.Close()
	for _, f := range g.files[1:] {
		g.m.watch.remove(f)
	}
	fdpass.CloseAll(g.files)
	for _, ms := range g.members {
		_ = ms.page.Close()
	}
}

func (g *group) begin(o steer.Options) {
	g.steer = steer.New(o)
	// The socket may have been made before the policy was this one. Errors show in add.
	_ = unix.SetsockoptInt(g.files[0].Fd(), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	g.add(0, g.files[0])
	g.mu.Lock()
	g.how = g.steer.Mode().String()
	g.mu.Unlock()
	if why := g.steer.Why(); why != nil {
		g.m.log.Info("connections are spread by hash", "handle", g.id, "addr", g.addr, "cause", why)
		return
	}
	g.m.log.Info("connections are steered by eBPF", "handle", g.id, "addr", g.addr)
}

// A socket that the program of an earlier master steers is free some milliseconds after
// that was taken off: see steer.ErrBusy.
const (
	busyEvery = 5 * time.Millisecond
	busyTries = 200
)

func (g *group) add(member int, f *fdpass.File) {
	err := g.steer.Add(member, f)
	for i := 0; i < busyTries && errors.Is(err, steer.ErrBusy); i++ {
		<-time.After(busyEvery)
		err = g.steer.Add(member, f)
	}
	g.warn("connections are not steered to a member", err)
}

func (g *group) warn(what string, err error) {
	if err != nil {
		g.m.log.Warn(what, "handle", g.id, "addr", g.addr, "err", err)
	}
}

// send sends a worker its members: with a grant, and the page for its counts where it
// is given several, or one member more.
func (g *group) send(worker proto.WorkerID, members []int, body proto.Message, data []byte, spec proto.SocketSpec) {
	var files []*fdpass.File
	for _, i := range members {
		files = append(files, g.file(i, spec))
	}
	if grant, ok := body.(proto.Grant); ok {
		g.withdraw(worker)
		ms := &membership{member: members[0]}
		if grant.Sockets > 0 {
			page, err := g.steer.NewPage()
			if err != nil {
				g.m.call(func() { g.m.ungranted(worker, g.id, err) })
				return
			}
			ms.page = page
			files = append(files, page)
		}
		g.members[worker] = ms
		if ms.page != nil {
			g.m.store.put(countName(g.id, worker), lendFile(ms.page))
		}
		g.m.call(func() { g.m.note(memberKey(g.id, worker), memberPiece{g.id, worker, ms.member}) })
	}
	g.m.call(func() { g.m.deliver(worker, data, files) })
}

// file returns a member's socket, and makes it if need be. Where that is not
// possible the worker shares the first one: it is less even, and nothing is lost.
func (g *group) file(member int, spec proto.SocketSpec) *fdpass.File {
	g.mu.Lock()
	for len(g.files) <= member {
		g.files = append(g.files, nil)
	}
	f := g.files[member]
	g.mu.Unlock()
	if f != nil {
		return f
	}
	f, err := g.bind(spec)
	if err != nil {
		g.warn("no socket for a member: its worker shares the first one", err)
		return g.files[0]
	}
	g.mu.Lock()
	g.files[member] = f
	g.mu.Unlock()
	g.m.store.put(memberName(g.id, member), lendFile(f))
	g.m.watchSocket(g.id, member, spec.Network, f)
	g.add(member, f)
	return f
}

// bind makes another socket like the first. The port is the one that it got, and
// the family.
func (g *group) bind(spec proto.SocketSpec) (*fdpass.File, error) {
	addr, err := netip.ParseAddrPort(g.addr)
	if err != nil {
		return nil, err
	}
	spec.Address, spec.Port, spec.Inherit, spec.ReusePort = addr.Addr().String(), int(addr.Port()), "", true
	f, _, err := socket.Bind(spec)
	return f, err
}

// serve lets connections go to a worker that is ready.
func (g *group) serve(worker proto.WorkerID) {
	ms := g.members[worker]
	if ms == nil || g.files[ms.member] == nil {
		return
	}
	g.serving[ms.member] = worker
	g.warn("connections are not steered to a worker", g.steer.Serve(ms.member, ms.page))
}

// rest lets no more connections go to a worker, unless its successor serves there
// already.
func (g *group) rest(worker proto.WorkerID) {
	ms := g.members[worker]
	if ms == nil || g.serving[ms.member] != worker {
		return
	}
	delete(g.serving, ms.member)
	g.warn("connections are steered to a worker that leaves", g.steer.Rest(ms.member))
}

// withdraw takes its member from a worker, which closed its listener or is gone.
func (g *group) withdraw(worker proto.WorkerID) {
	g.rest(worker)
	if ms := g.members[worker]; ms != nil {
		g.m.store.drop(countName(g.id, worker))
		_ = ms.page.Close()
		delete(g.members, worker)
	}
}

// resume takes over the members and the workers of an earlier master's group.
func (g *group) resume(members []*fdpass.File, parts map[proto.WorkerID]*membership) {
	g.mu.Lock()
	g.files = append(g.files, members...)
	g.mu.Unlock()
	for i, f := range members {
		if f != nil {
			g.add(i+1, f)
		}
	}
	g.members = parts
}

// dispatch lets the dispatcher accept on all members but the first, which it has.
func (g *group) dispatch(spec proto.SocketSpec) {
	for ; g.handed < len(g.files); g.handed++ {
		f := g.files[g.handed]
		if f == nil {
			continue
		}
		g.warn("options of connections not set", socket.Tune(f.Fd(), spec, true))
		dup, err := f.Dup()
		if err == nil {
			err = g.m.dispatcher.AddSocket(uint64(g.id), dup)
		}
		g.warn("connections under way to a member may be lost", err)
	}
}

// only sends everything to one member, whoever is ready; -1 undoes it.
func (g *group) only(member int) {
	g.warn("connections are not steered", g.steer.Only(member))
}

// state returns how connections are steered, and how many wait on members beside
// the first.
func (g *group) state() (how string, queued int) {
	if g == nil {
		return "", 0
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, f := range g.files[1:] {
		if n, _, err := socket.Queue(f.Fd()); err == nil {
			queued += n
		}
	}
	return g.how, queued
}
