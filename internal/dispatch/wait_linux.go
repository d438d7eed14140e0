package dispatch

import (
	"os"
	"runtime"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// period is after which time an alarm comes at the latest: what failed for a lack of
// memory or descriptors is tried again, and who is late is found if no event came
// before.
const period = 4 * time.Millisecond

// alarm lets the clock ring within period. A timeout of epoll_wait(2) would do the
// same, and cost 10 us each time: a timer that is set and taken back at once is two
// visits to the hypervisor, of which the clock's takes one in several connections.
func (d *Dispatcher) alarm() {
	if !d.alarmed {
		d.alarmed = true
		_ = unix.TimerfdSettime(d.clock, 0, &unix.ItimerSpec{Value: unix.NsecToTimespec(int64(period))}, nil)
	}
}

// rung tries again what failed, and looks who is late.
func (d *Dispatcher) rung() {
	var times [8]byte
	_, _ = unix.Read(d.clock, times[:])
	d.alarmed = false
	if d.failed {
		d.failed = false
		d.pumpAll()
	}
	if len(d.unread) > 0 {
		d.alarm()
	}
}

// wait is epoll_wait(2). A thread that tells the scheduler that it goes into a system
// call wakes the scheduler's monitor when it comes back, which then looks around every
// 20 us for a while: at a thousand connections a second that was a fifth of what the
// master and its workers needed for them. So as long as connections keep coming it
// waits without a word and holds a processor of the scheduler. That one's monitor
// interrupts it after some 10 ms, and whoever stops the world does at once; then it
// waits as one should, until something happens.
func (d *Dispatcher) wait(events []unix.EpollEvent) (int, error) {
	if !d.silent || d.tired {
		d.tired = false
		return unix.EpollWait(d.ep, events, -1)
	}
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(d.ep), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), ^uintptr(0), 0, 0)
	if errno != 0 {
		d.tired, d.silent = true, isInterrupted() // the number of processors may change (cgroup)
		return 0, errno
	}
	return int(n), nil
}

// isInterrupted reports whether the Go scheduler interrupts who holds a processor for
// long: it sends a signal, unless it is told not to.
func isInterrupted() bool {
	const off = "asyncpreemptoff="
	debug := os.Getenv("GODEBUG")
	return runtime.GOMAXPROCS(0) > 1 && (!strings.Contains(debug, off) || strings.Contains(debug, off+"0"))
}
