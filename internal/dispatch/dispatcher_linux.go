package dispatch

import (
	"fmt"
	"runtime"
	"sync"
	"time"
	"unsafe"

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
}

// Dispatcher is a running dispatcher. Its methods may be called from any
// goroutine; they are carried out in order, and return once they were, in some
// microseconds.
type Dispatcher struct {
	o       Options
	ep      int
	mu      sync.Mutex
	wake    int // eventfd; -1 once it is closed. Written with mu held, by the dispatcher
	inbox   []func()
	closed  bool
	ended   chan struct{}
	silent  bool      // see wait
	retry   time.Time // when what failed is tried again; zero when nothing did
	entries []entry
	unused  []int32
	handles map[uint64]*handle
	scratch scratch
}

// entry is what an epoll event leads to: a handle's socket or a member's channel.
type entry struct {
	h *handle
	s *source
	m *member
}

// retryAfter is the time after which something that failed for a lack of memory or
// descriptors is tried again.
const retryAfter = 10 * time.Millisecond

// New starts a dispatcher. Errors: EMFILE, ENOMEM, and those of sched_setattr(2).
func New(o Options) (*Dispatcher, error) {
	if o.Batch == 0 {
		o.Batch = 16
	}
	if o.Report == nil {
		o.Report = func(uint64, uint64, error) {}
	}
	d := &Dispatcher{o: o, silent: runtime.GOMAXPROCS(0) > 1, ended: make(chan struct{}), handles: map[uint64]*handle{}}
	var err error
	if d.ep, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	if d.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		_ = unix.Close(d.ep)
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	if err := d.watch(d.wake, d.place(entry{}), unix.EPOLLIN); err != nil {
		_ = unix.Close(d.ep)
		_ = unix.Close(d.wake)
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
	for !d.closed {
		timeout := -1
		if !d.retry.IsZero() {
			timeout = int(max(0, time.Until(d.retry)+time.Millisecond-1) / time.Millisecond)
		}
		n, err := d.wait(events, timeout)
		if err != nil && err != unix.EINTR {
			panic("dispatch: epoll_wait: " + err.Error())
		}
		// Whatever else happens: events must not put it off.
		if !d.retry.IsZero() && !time.Now().Before(d.retry) {
			d.retry = time.Time{}
			d.pumpAll()
		}
		for i := range max(0, n) {
			d.event(events[i])
		}
	}
	d.release()
}

// attention is how long the dispatcher waits without telling the Go scheduler.
const attention = 2 // ms

// wait is epoll_wait(2). A thread that tells the scheduler that it goes into a system
// call wakes the scheduler's monitor when it comes back, which then looks around every
// 20 us for a while: at a thousand connections a second that was a fifth of what the
// master and its workers needed for them. So as long as connections keep coming it waits without a word, holding a
// processor of the scheduler, at most for attention; only then as one should.
func (d *Dispatcher) wait(events []unix.EpollEvent, timeout int) (int, error) {
	if d.silent && (timeout < 0 || timeout > attention) {
		n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(d.ep), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), attention, 0, 0)
		if errno != 0 { // EINTR above all: the scheduler wants its processor
			return 0, errno
		}
		if n > 0 {
			return int(n), nil
		}
	}
	return unix.EpollWait(d.ep, events, timeout)
}

func (d *Dispatcher) schedule() error {
	if d.o.Scheduling != "batch" {
		return nil
	}
	attr := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_BATCH}
	if err := unix.SchedSetAttr(0, &attr, 0); err != nil {
		return fmt.Errorf("sched_setattr: %w", err)
	}
	return nil
}

func (d *Dispatcher) event(e unix.EpollEvent) {
	en := d.entries[e.Fd]
	switch {
	case en.m != nil:
		d.verdicts(en.m, atOnce) // epoll reports what is left
		d.pump(en.h)
	case en.s != nil:
		en.s.arrived = true
		d.pump(en.h)
	default:
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

// Close ends the dispatcher. Connections that no worker has accepted yet are
// closed with it; listening sockets and channels too.
func (d *Dispatcher) Close() {
	d.do(func() { d.closed = true })
	<-d.ended
}

func (d *Dispatcher) release() {
	for _, h := range d.handles {
		d.remove(h)
	}
	_ = unix.Close(d.ep)
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
	ev := unix.EpollEvent{Events: events, Fd: at}
	if err := unix.EpollCtl(d.ep, unix.EPOLL_CTL_ADD, fd, &ev); err != nil {
		return fmt.Errorf("epoll_ctl: %w", err)
	}
	return nil
}
