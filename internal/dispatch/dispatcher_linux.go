package dispatch

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Options of a Dispatcher.
type Options struct {
	// Batch is how many connections one Handover brings at most, 1 to
	// proto.MaxHandover; 0 means 16.
	Batch int
	// Scheduling is the policy of the dispatcher's thread: "" leaves it, "batch" is
	// SCHED_BATCH (sched(7)), under which a connection that arrives while a worker
	// runs waits for its turn, so that several are handed over at once.
	Scheduling string
	// Report is told what an operator should know: accept(2) fails, a worker breaks
	// the protocol. It is called on the dispatcher's thread and must not block.
	Report func(handle, worker uint64, err error)
	// Stranded is told of a handle where connections wait, taken back from a worker,
	// and nobody is left who may take them. It is called like Report.
	Stranded func(handle uint64)
	// Left is told when a part that has a number has ended, and what its worker had not
	// read was taken back. It is called like Report.
	Left func(handle, part uint64)
}

// Dispatcher is a running dispatcher. Its methods may be called from any
// goroutine; they are carried out in order, and return once they were, in some
// microseconds.
type Dispatcher struct {
	o        Options
	ep       int
	mu       sync.Mutex
	wake     int // eventfd; -1 once it is closed. Written with mu held, by the dispatcher
	inbox    []func()
	closed   bool
	ended    chan struct{}
	aside    sync.WaitGroup // what may take its time; nobody waits for it but tests
	reading  atomic.Int32   // who reads back, see takeBack
	handles  map[uint64]*handle
	peers    map[uint64]*peer // by worker
	entries  []entry
	unused   []int32
	scratch  scratch
	wide     []byte    // for what peers say
	line     []byte    // for what they are told
	now      time.Time // as of the last event
	round    uint64    // grows with each event
	patience time.Duration
	unread   []*member // with a hand-over that was not read when it was looked at
	due      time.Time // when the first of these is late; zero when nothing is unread

	silent  bool // see wait
	tired   bool
	clock   int  // timerfd, see alarm
	alarmed bool // it is set
	failed  bool // something is to be tried again when it rings
}

// entry is what an epoll event leads to: a handle's socket, a member's channel or a
// peer's.
type entry struct {
	h *handle
	s *source
	m *member
	p *peer
}

// The first entries.
const (
	atWake  = iota // what other goroutines asked for
	atClock        // see alarm
)

// New starts a dispatcher. Errors: EMFILE, ENOMEM, and those of sched_setattr(2).
func New(o Options) (*Dispatcher, error) {
	if o.Batch == 0 {
		o.Batch = 16
	}
	if o.Report == nil {
		o.Report = func(uint64, uint64, error) {}
	}
	if o.Stranded == nil {
		o.Stranded = func(uint64) {}
	}
	if o.Left == nil {
		o.Left = func(uint64, uint64) {}
	}
	d := &Dispatcher{o: o, silent: isInterrupted(), patience: patience, ended: make(chan struct{}), handles: map[uint64]*handle{}, peers: map[uint64]*peer{}}
	var err error
	if d.ep, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	if d.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		_ = unix.Close(d.ep)
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	if d.clock, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK); err != nil {
		_ = unix.Close(d.ep)
		_ = unix.Close(d.wake)
		return nil, fmt.Errorf("timerfd_create: %w", err)
	}
	d.entries = []entry{atWake: {}, atClock: {}}
	err = d.watch(d.wake, atWake, unix.EPOLLIN)
	if err == nil {
		err = d.watch(d.clock, atClock, unix.EPOLLIN)
	}
	if err != nil {
		_ = unix.Close(d.ep)
		_ = unix.Close(d.wake)
		_ = unix.Close(d.clock)
		return nil, err
	}
	begun := make(chan error)
	go d.run(begun)
	if err := <-begun; err != nil {
		return nil, err
	}
	return d, nil
}

func (d *Dispatcher) run(begun chan<- error) {
	defer close(d.ended)
	runtime.LockOSThread() // and never unlocked: the thread ends with its scheduling policy
	err := d.schedule()
	begun <- err
	if err != nil {
		d.release()
		return
	}
	events := make([]unix.EpollEvent, 64)
	d.now = time.Now()
	for !d.closed {
		n, err := d.wait(events)
		if err != nil && err != unix.EINTR {
			panic("dispatch: epoll_wait: " + err.Error())
		}
		d.now = time.Now()
		for i := range max(0, n) {
			d.event(events[i])
		}
		if !d.due.IsZero() && !d.now.Before(d.due) { // whatever else happens: events must not put it off
			d.overdue()
		}
	}
	d.release()
}

func (d *Dispatcher) schedule() error {
	if d.o.Scheduling != "batch" {
		return nil
	}
	attr, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		return fmt.Errorf("sched_getattr: %w", err)
	}
	attr.Policy, attr.Flags = unix.SCHED_BATCH, 0
	attr.Runtime = 100_000 // ns; the shortest, so that it is soon its turn where workers compute
	if err := unix.SchedSetAttr(0, attr, 0); err != nil {
		return fmt.Errorf("sched_setattr: %w", err)
	}
	return nil
}

func (d *Dispatcher) event(e unix.EpollEvent) {
	d.round++
	en := d.entries[e.Fd]
	switch {
	case en.m != nil:
		d.told(en.m, e.Events)
		d.pump(en.h)
	case en.s != nil:
		en.s.arrived = true
		d.pump(en.h)
	case en.p != nil:
		d.peerTold(en.p, e.Events)
	case e.Fd == atClock:
		d.rung()
	case e.Fd == atWake:
		d.commands()
	}
}

// commands runs what other goroutines asked for.
func (d *Dispatcher) commands() {
	var count [8]byte
	_, _ = unix.Read(d.wake, count[:])
	d.mu.Lock()
	inbox := d.inbox
	d.inbox = nil
	d.mu.Unlock()
	for _, fn := range inbox {
		d.round++
		fn()
	}
}

// do runs fn on the dispatcher's thread and waits for it; false when the dispatcher
// had ended before.
func (d *Dispatcher) do(fn func()) bool {
	ran := make(chan struct{})
	d.mu.Lock()
	if d.wake < 0 {
		d.mu.Unlock()
		return false
	}
	d.inbox = append(d.inbox, func() { fn(); close(ran) })
	one := [8]byte{1}
	_, _ = unix.Write(d.wake, one[:]) // with mu held: its number is not another file's yet
	d.mu.Unlock()
	select {
	case <-ran:
	case <-d.ended:
	}
	select { // both may be closed by now
	case <-ran:
		return true
	default:
		return false
	}
}

// Close ends the dispatcher. Listening sockets and channels are closed with it, and
// connections that are in none of these; what is in a channel is the worker's.
func (d *Dispatcher) Close() {
	d.do(func() { d.closed = true })
	<-d.ended
}

func (d *Dispatcher) release() {
	for _, h := range d.handles {
		d.remove(h)
	}
	for _, p := range d.peers {
		d.removePeer(p)
	}
	_ = unix.Close(d.ep)
	_ = unix.Close(d.clock)
	d.mu.Lock()
	defer d.mu.Unlock()
	_ = unix.Close(d.wake)
	d.wake = -1
}

// place gives an entry a number for epoll.
func (d *Dispatcher) place(e entry) int32 {
	if n := len(d.unused); n > 0 {
		at := d.unused[n-1]
		d.unused = d.unused[:n-1]
		d.entries[at] = e
		return at
	}
	d.entries = append(d.entries, e)
	return int32(len(d.entries) - 1)
}

// vacate frees a number. An event of the old entry that was read already finds
// the number without an owner or with another, whose pump is harmless.
func (d *Dispatcher) vacate(at int32) {
	d.entries[at] = entry{}
	d.unused = append(d.unused, at)
}

func (d *Dispatcher) watch(fd int, at int32, events uint32) error {
	return d.control(unix.EPOLL_CTL_ADD, fd, at, events)
}

func (d *Dispatcher) control(op, fd int, at int32, events uint32) error {
	ev := unix.EpollEvent{Events: events, Fd: at}
	if err := unix.EpollCtl(d.ep, op, fd, &ev); err != nil {
		return fmt.Errorf("epoll_ctl: %w", err)
	}
	return nil
}
