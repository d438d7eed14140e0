package load

import (
	"container/heap"
	"context"
	"fmt"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	maxWait     = 10 * time.Millisecond // how late an ended context may be seen
	progressGap = 50 * time.Millisecond
	closeWait   = time.Second          // for the server to close first
	retryGap    = 1 * time.Millisecond // pause of a client without schedule after a failure
	burst       = 64                   // most begins of a group between two looks at the events
)

// loop is one run. All of it belongs to the goroutine that called Run.
type loop struct {
	plan  Plan
	flows []*flow
	start time.Time
	end   int64 // no request is scheduled at or after it
	over  bool  // nothing begins any more

	epfd    int
	events  []unix.EpollEvent
	conns   []*conn
	free    []*conn
	busy    list // by begin, so by deadline too
	closing list // by time
	open    int  // sockets
	active  int  // requests

	waiting  clientHeap
	examples []Example
	nth      map[Kind]int
	report   int64 // time of the next call of Progress
}

// Run carries out plan and judges it. It returns when all requests have ended:
// after Duration, or earlier when ctx ends or each group did its Count, and at most
// Timeout later. A run that ctx ended is judged by the time it had; that is the way
// to load "until the reload is done". The error is about the plan or this system,
// then nothing was sent; what went wrong with requests is in [Result.Err].
// Run may be called by several goroutines at once.
func Run(ctx context.Context, plan Plan) (Result, error) {
	plan, targets, err := plan.prepared()
	if err != nil {
		return Result{}, err
	}
	if plan.Threads > 1 {
		return runThreads(ctx, plan, targets)
	}
	l := &loop{plan: plan, end: int64(plan.Duration), nth: map[Kind]int{}, examples: []Example{}, events: make([]unix.EpollEvent, 512)}
	tcp := false
	for i, g := range plan.Groups {
		f := newFlow(i, g, targets[i])
		l.flows = append(l.flows, f)
		l.waiting = append(l.waiting, f.clients...)
		tcp = tcp || targets[i].path == ""
	}
	heap.Init(&l.waiting)
	if l.epfd, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return Result{}, fmt.Errorf("cannot create an epoll set: %w", err)
	}
	defer l.close()

	// The thread is ours so that its CPU time is ours, and so that its timers
	// may be exact: the default slack of 50 us would be part of each latency.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if slack, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0); err == nil && slack > 0 {
		if unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0) == nil {
			defer unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(slack), 0, 0, 0)
		}
	}

	before, dropsErr := ReadDrops()
	cpuBefore, ownBefore := cpuOf(plan.CPUOf), threadCPU()
	l.start = time.Now()
	if err := l.run(ctx); err != nil {
		return Result{}, err
	}
	own, cpu := threadCPU()-ownBefore, cpuOf(plan.CPUOf)
	after, err := ReadDrops()
	if dropsErr == nil {
		dropsErr = err
	}

	r := Result{Start: l.start, Elapsed: time.Duration(l.end), Examples: l.examples, DropsIgnored: plan.IgnoreDrops, ClientCPU: own}
	if dropsErr != nil {
		r.DropsErr = dropsErr.Error()
	} else {
		r.Drops = after.since(before)
	}
	r.CPU = spent(cpuBefore, cpu)
	for _, f := range l.flows {
		r.Groups = append(r.Groups, f.figures(l.end))
	}
	r.Figures = total(r.Groups)
	r.judge(tcp)
	return r, nil
}

// now is the time since the start.
func (l *loop) now() int64 { return int64(time.Since(l.start)) }

func (l *loop) run(ctx context.Context) error {
	done := ctx.Done()
	for {
		now := l.now()
		select {
		case <-done:
			l.end = min(l.end, now)
			done = nil
		default:
		}
		l.launch(now)
		l.expire(l.now())
		if l.over && l.active == 0 {
			l.progress(l.now(), true)
			return nil
		}
		if err := l.wait(); err != nil {
			return err
		}
	}
}

// launch begins what is due. What was scheduled before the end may begin a little
// after it, within the tolerance of the rate: else a pause of the machine in the
// last millisecond would look like a rate that was missed.
func (l *loop) launch(now int64) {
	if l.over {
		return
	}
	more := now < l.end
	room := now < l.end+int64(float64(l.end)*tolerance)
	exhausted := true
	for _, f := range l.flows {
		for n := 0; f.Rate > 0 && room && !f.exhausted() && n < burst && l.open < l.plan.MaxOpen; n++ {
			at := f.tick(f.ticks)
			if at > now || at >= l.end {
				break
			}
			f.ticks++
			l.begin(f, nil, at)
		}
		exhausted = exhausted && f.exhausted()
		more = more || (f.Rate > 0 && !f.exhausted() && f.tick(f.ticks) < l.end)
	}
	for n := 0; n < burst && room; n++ {
		c := l.nextClient()
		if c == nil || c.due > now {
			break
		}
		heap.Pop(&l.waiting)
		if c.flow.exhausted() {
			continue // for good
		}
		l.begin(c.flow, c, c.due)
	}
	more = more || (len(l.waiting) > 0 && l.waiting[0].due < l.end)
	if exhausted {
		l.end = min(l.end, l.now())
	}
	// A client that waits for its answer may come back with a request that was
	// due before the end.
	l.over = exhausted || !room || (!more && l.active == 0)
}

// nextClient is the client that may begin next, or nil: none is due before the
// end, or the first one would need a connection beyond MaxOpen.
func (l *loop) nextClient() *client {
	if len(l.waiting) == 0 {
		return nil
	}
	c := l.waiting[0]
	if c.due >= l.end || (c.conn == nil && l.open >= l.plan.MaxOpen) {
		return nil
	}
	return c
}

// expire ends what took too long.
func (l *loop) expire(now int64) {
	for c := l.busy.head; c != nil && c.begun+int64(l.plan.Timeout) <= now; c = l.busy.head {
		l.fail(c, Timeout, fmt.Sprintf("no full answer after %v, %d of %d request bytes unsent, %d bytes received",
			l.plan.Timeout, len(c.out), c.size, len(c.in)))
	}
	for c := l.closing.head; c != nil && c.begun+int64(closeWait) <= now; c = l.closing.head {
		l.drop(c)
	}
	l.progress(now, false)
}

func (l *loop) progress(now int64, last bool) {
	if l.plan.Progress == nil || (now < l.report && !last) {
		return
	}
	l.report = now + int64(progressGap)
	p := Progress{Elapsed: time.Duration(now)}
	for _, f := range l.flows {
		p.Begun += f.fig.Begun
		p.Answered += f.fig.Answered
		p.Failures += f.fig.Failures()
	}
	l.plan.Progress(p)
}

// wait sleeps until the next event or the next thing that is due, and handles
// what came.
func (l *loop) wait() error {
	now := l.now()
	until := now + int64(maxWait)
	if !l.over {
		for _, f := range l.flows {
			if f.Rate > 0 && !f.exhausted() && l.open < l.plan.MaxOpen && f.tick(f.ticks) < l.end {
				until = min(until, f.tick(f.ticks))
			}
		}
		if c := l.nextClient(); c != nil {
			until = min(until, c.due)
		}
		if now < l.end {
			until = min(until, l.end)
		}
	}
	if l.busy.head != nil {
		until = min(until, l.busy.head.begun+int64(l.plan.Timeout))
	}
	ts := unix.NsecToTimespec(max(until-now, 0))
	// epoll_pwait2(2), since Linux 5.11: a timeout in nanoseconds.
	n, _, errno := unix.Syscall6(unix.SYS_EPOLL_PWAIT2, uintptr(l.epfd), uintptr(unsafe.Pointer(&l.events[0])),
		uintptr(len(l.events)), uintptr(unsafe.Pointer(&ts)), 0, 0)
	if errno == unix.EINTR {
		return nil
	}
	if errno != 0 {
		return fmt.Errorf("cannot wait for events: %w", errno)
	}
	for _, ev := range l.events[:n] {
		// A connection closed earlier in this batch has another turn by now.
		if c := l.conns[ev.Fd]; c.turn == ev.Pad {
			l.handle(c, ev.Events)
		}
	}
	return nil
}

// close ends what is still open: idle and closing connections, the epoll set.
func (l *loop) close() {
	for _, c := range l.conns {
		if c.fd >= 0 {
			unix.Close(c.fd)
		}
	}
	unix.Close(l.epfd)
}

func threadCPU() time.Duration {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_THREAD, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// spent is the CPU time of processes that were there before and after.
func spent(before, after map[int]time.Duration) (cpu map[int]time.Duration) {
	for pid, c := range after {
		if b, alive := before[pid]; alive {
			if cpu == nil {
				cpu = map[int]time.Duration{}
			}
			cpu[pid] = c - b
		}
	}
	return cpu
}
