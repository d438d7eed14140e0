package proc

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
)

// reapWait bounds how long Wait looks for the exit status of a process that
// another one must reap.
const reapWait = 200 * time.Millisecond

// Process is a process, from its start or its adoption until Close. Its methods
// may be called from several goroutines, but Wait from one at a time.
type Process struct {
	pid   int
	child bool
	file  *os.File // owns the pidfd, for the runtime's poller
	raw   syscall.RawConn
	lent  *fdpass.File // the same descriptor, not owned

	started  chan struct{} // closed by instruct; nil when adopted
	startErr error         // written before started is closed

	mu     sync.Mutex // held while reaping, so that no signal meets a number that is free
	exited bool       // guarded by mu
	exit   Exit       // guarded by mu
}

// Exit is how a process ended.
type Exit struct {
	Code       int  // exit status; 0 when a signal ended it
	Signal     int  // 0 when it exited
	CoreDumped bool // with Signal
	// Known is false when nobody told: the process was no child of ours and the
	// kernel keeps no record. The rest is then 0 and means nothing.
	Known bool

	UserCPU   time.Duration // with its children that it waited for; 0 when adopted as no child
	SystemCPU time.Duration
	MaxRSS    uint64 // bytes; as UserCPU
}

// String is for humans: "exit status 1", "signal SIGSEGV (core dumped)",
// "unknown".
func (e Exit) String() string {
	switch {
	case !e.Known:
		return "unknown"
	case e.Signal == 0:
		return "exit status " + strconv.Itoa(e.Code)
	}
	name := unix.SignalName(unix.Signal(e.Signal))
	if name == "" {
		name = strconv.Itoa(e.Signal)
	}
	if e.CoreDumped {
		name += " (core dumped)"
	}
	return "signal " + name
}

// Adopt takes pidfd, of the process pid that this one did not start itself: a
// child from before an exec of the master, or a worker of an earlier master. On
// an error the pidfd is closed. Errors: ESRCH when pidfd is of another process,
// EBADF, EINVAL for a descriptor that is no pidfd.
func Adopt(pid int, pidfd *fdpass.File) (*Process, error) {
	actual, err := pidOf(pidfd.Fd())
	// -1: gone and reaped, and the number is free; Wait says so.
	if err == nil && actual != pid && actual != -1 {
		err = unix.ESRCH
	}
	if err == nil {
		err = unix.Waitid(unix.P_PIDFD, pidfd.Fd(), nil, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
		child := err == nil || err == unix.EAGAIN
		var p *Process
		if p, err = newProcess(pid, pidfd, child); err == nil {
			return p, nil
		}
	}
	_ = pidfd.Close()
	return nil, fmt.Errorf("cannot adopt process %d: %w", pid, err)
}

// PIDOf returns the number of the process of a pidfd, -1 when it was reaped. Errors:
// EBADF, EINVAL for another kind of descriptor.
func PIDOf(pidfd *fdpass.File) (int, error) { return pidOf(pidfd.Fd()) }

// newProcess takes pidfd, on an error too.
func newProcess(pid int, pidfd *fdpass.File, child bool) (*Process, error) {
	fd := pidfd.Release()
	if fd < 0 {
		return nil, fdpass.ErrClosed
	}
	// os.NewFile gives only non-blocking files to the poller. The mode matters to
	// waitid(2) alone, and nobody else holds this pidfd to wait.
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	unix.CloseOnExec(fd)
	file := os.NewFile(uintptr(fd), "pidfd")
	raw, err := file.SyscallConn()
	if err != nil {
		_ = file.Close()
		return nil, err
	}
	return &Process{pid: pid, child: child, file: file, raw: raw, lent: fdpass.NewFile(fd)}, nil
}

// PID is the number of the process, and of its session and process group when
// Start made it. After Wait it may belong to another process.
func (p *Process) PID() int { return p.pid }

// PIDFile lends the pidfd. It polls readable when the process has ended.
func (p *Process) PIDFile() *fdpass.File { return p.lent }

// Close closes the pidfd; the process is left alone. A Wait under way returns
// fdpass.ErrClosed.
func (p *Process) Close() error {
	p.lent.Release()
	return mapClosed(p.file.Close())
}

// Started blocks until the command was executed, and returns nil, or until it is
// clear that it will not be: then it returns the stage's *StageError. It bounds
// the time in no way (a directory on a dead server may take for ever): killing
// the process ends it. For an adopted process it returns nil at once.
func (p *Process) Started() error {
	if p.started == nil {
		return nil
	}
	<-p.started
	return p.startErr
}

// Signal sends sig to the process (pidfd_send_signal(2)). It does not block.
// Errors: ESRCH when it was reaped, EPERM, fdpass.ErrClosed.
func (p *Process) Signal(sig unix.Signal) error {
	return p.send(sig, 0)
}

func (p *Process) send(sig unix.Signal, flags int) error {
	var serr error
	if err := p.raw.Control(func(fd uintptr) { serr = unix.PidfdSendSignal(int(fd), sig, nil, flags) }); err != nil {
		return mapClosed(err)
	}
	return serr
}

// KillTree kills every process of the group that the process leads, also after
// it has ended itself. What left the group by its own setsid(2) or setpgid(2) is
// not reached. It does not block. Errors: ESRCH when there is none left, EPERM,
// fdpass.ErrClosed.
func (p *Process) KillTree() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.killTree()
}

// killTree is KillTree with mu held.
func (p *Process) killTree() error {
	err := p.send(unix.SIGKILL, unix.PIDFD_SIGNAL_PROCESS_GROUP)
	if err != unix.EINVAL {
		return err
	}
	// Before Linux 6.9 only the number names the group. It is surely ours as long
	// as the leader was not reaped.
	if p.exited || (!p.child && p.ended()) {
		return unix.ESRCH
	}
	return unix.Kill(-p.pid, unix.SIGKILL)
}

// Wait blocks until the process has ended, in the runtime's poller: no thread is
// held. It then kills what is left of the process group, while the dead leader
// still keeps the number from being used again, reaps and returns how it ended.
// A second Wait returns the same. Errors: fdpass.ErrClosed.
func (p *Process) Wait() (Exit, error) {
	p.mu.Lock()
	if p.exited {
		defer p.mu.Unlock()
		return p.exit, nil
	}
	p.mu.Unlock()
	if err := p.raw.Read(func(fd uintptr) bool { return readable(int(fd)) }); err != nil {
		return Exit{}, mapClosed(err)
	}
	var exit Exit
	if !p.child {
		exit = p.recorded() // before mu: it may wait for the one who reaps
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = p.killTree()
	if p.child {
		exit = p.reap()
	}
	p.exit, p.exited = exit, true
	return exit, nil
}

// reap takes the status of a child that has ended. It does not block, unless a
// debugger holds the dead child. wait4(2) by number is safe: nobody else reaps.
func (p *Process) reap() Exit {
	var status unix.WaitStatus
	var usage unix.Rusage
	for {
		_, err := unix.Wait4(p.pid, &status, 0, &usage)
		if err == unix.EINTR {
			continue
		}
		if err != nil { // ECHILD: somebody else did
			return p.recorded()
		}
		exit := exitOf(status)
		exit.UserCPU, exit.SystemCPU = time.Duration(usage.Utime.Nano()), time.Duration(usage.Stime.Nano())
		exit.MaxRSS = uint64(usage.Maxrss) << 10 // getrusage(2): kilobytes
		return exit
	}
}

// recorded asks the kernel how a process ended that another one reaps: from Linux
// 6.15 on it keeps that as long as a pidfd is open (PIDFD_GET_INFO, pidfd_open(2)).
func (p *Process) recorded() Exit {
	var exit Exit
	ask := func(fd uintptr) bool {
		info := unix.PidfdInfo{Mask: unix.PIDFD_INFO_EXIT}
		err := unix.IoctlPidfdInfo(int(fd), &info)
		if err == nil && info.Mask&unix.PIDFD_INFO_EXIT != 0 {
			exit = exitOf(unix.WaitStatus(info.Exit_code))
			return true
		}
		return err != nil // an older kernel; success without the bit: not reaped yet
	}
	_ = p.file.SetReadDeadline(time.Now().Add(reapWait))
	if err := p.raw.Read(ask); err != nil {
		_ = p.raw.Control(func(fd uintptr) { ask(fd) })
	}
	_ = p.file.SetReadDeadline(time.Time{})
	return exit
}

func (p *Process) ended() bool {
	over := true
	_ = p.raw.Control(func(fd uintptr) { over = readable(int(fd)) })
	return over
}

func exitOf(status unix.WaitStatus) Exit {
	if status.Signaled() {
		return Exit{Signal: int(status.Signal()), CoreDumped: status.CoreDump(), Known: true}
	}
	return Exit{Code: status.ExitStatus(), Known: true}
}

// readable reports whether the process has ended: all of its threads, pidfd_open(2).
func readable(fd int) bool {
	set := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(set, 0)
	return err == nil && n == 1
}

// pidOf reads the process's number from the description of a pidfd, -1 when it
// was reaped.
func pidOf(fd int) (int, error) {
	if fd < 0 {
		return 0, unix.EBADF
	}
	text, err := os.ReadFile("/proc/self/fdinfo/" + strconv.Itoa(fd))
	if errors.Is(err, os.ErrNotExist) {
		return 0, unix.EBADF
	}
	if err != nil {
		return 0, err
	}
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), "Pid:"); ok {
			return strconv.Atoi(strings.TrimSpace(value))
		}
	}
	return 0, unix.EINVAL
}

// mapClosed is for the errors of a RawConn and of Close: there a closed file is
// an error that os does not export.
func mapClosed(err error) error {
	if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return fdpass.ErrClosed
}
