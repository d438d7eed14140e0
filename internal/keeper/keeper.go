//go:build linux

package keeper

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
	"github.com/f72e338e/supervisord/systemd"
)

// Variable names the descriptors of a master that a keeper started: its end of the
// socket pair, and its own executable, which it may close.
const Variable = "SUPERVISORD_KEEPER"

// Options of a keeper.
type Options struct {
	Program string    // executable of the first master
	Args    []string  // with the name of the program
	Log     io.Writer // lines for humans
	Times   bool      // begin them with the time
	// Watchdog is how long a master that is ready may say nothing, 0 for ever.
	Watchdog time.Duration
}

const (
	// A master that was ready for lasted is started again at once when it crashes. Each
	// other in a row is waited with for twice as long: clients of what it dispatches wait,
	// too, so not long when it was ready at all.
	lasted     = time.Second
	readyFirst = 10 * time.Millisecond
	readyLast  = 200 * time.Millisecond
	delayFirst = 100 * time.Millisecond
	delayLast  = 5 * time.Second
	// So many masters may be killed before any was ready; then the keeper gives up.
	maxUnborn = 5
	// abortTime is what a master that hangs has from SIGABRT to SIGKILL.
	abortTime = 2 * time.Second
	// deaf is how long a signal waits for a master to say that it hears them: before that
	// it would be killed by it.
	deaf      = 2 * time.Second
	bufferLen = 8 << 10
)

type keeper struct {
	o       Options
	near    *fdpass.File // our end of the pair
	far     *fdpass.File // the masters' end, one after the other
	wake    [2]int       // a pipe: a signal has come
	signals chan os.Signal
	up      *systemd.Notifier // our own manager, if there is one
	pings   time.Duration     // how often the master is to say that it lives; 0 = never
	store   []stored
	good    *fdpass.File // the executable that said READY=1 last; before, the first one

	pending []os.Signal // for a master that does not hear yet
	asked   []os.Signal // to stop, and it has not said that it does
	hearsBy time.Time   // it gets them in any case

	pid       int  // of the master, 0 for none
	heard     bool // it said something, so it hears signals, too
	ready     bool
	everReady bool
	stopping  bool // it said so
	readyAt   time.Time
	inRow     int       // masters that did not last
	startAt   time.Time // of the next one
	aliveBy   time.Time // when it is taken for hung
	killAt    time.Time // when SIGABRT has had its time
	code      int
	ended     bool
}

// Run keeps masters until one has ended as it should, and returns the exit code of the
// process. It takes over the process: its signals, its children, and the sockets and
// variables that a manager passed. Errors: of socketpair(2), pipe(2) and open(2) of the
// program; nothing was started then.
func Run(o Options) (int, error) {
	k := &keeper{o: o, signals: make(chan os.Signal, 64), up: systemd.NewNotifier(), pings: o.Watchdog}
	if d, ok := systemd.WatchdogInterval(); ok && (k.pings == 0 || d < k.pings) {
		k.pings = d
	}
	if err := k.open(); err != nil {
		return 0, err
	}
	signal.Notify(k.signals, append([]os.Signal{unix.SIGCHLD}, forwarded...)...)
	signal.Ignore(unix.SIGPIPE)
	_ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) // without it workers that lose a master are init's
	pending := make(chan os.Signal, cap(k.signals))
	go func() {
		for sig := range k.signals {
			pending <- sig
			_, _ = unix.Write(k.wake[1], []byte{0})
		}
	}()
	for !k.ended {
		k.act(time.Now())
		k.wait()
		k.receive()
		for more := true; more; {
			select {
			case sig := <-pending:
				k.signaled(sig)
			default:
				more = false
			}
		}
	}
	return k.code, nil
}

func (k *keeper) open() error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("socketpair: %w", err)
	}
	k.near, k.far = fdpass.NewFile(pair[0]), fdpass.NewFile(pair[1])
	_ = unix.SetsockoptInt(pair[1], unix.SOL_SOCKET, unix.SO_SNDBUF, 8<<20)
	if err := unix.Pipe2(k.wake[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return fmt.Errorf("pipe: %w", err)
	}
	// The file, not its path, which may lead to another one by the time of a crash.
	fd, err := unix.Open(k.o.Program, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", k.o.Program, err)
	}
	k.good = fdpass.NewFile(fd)
	inherited, err := systemd.Inherited()
	if err != nil {
		return err
	}
	for _, s := range inherited {
		k.store = append(k.store, stored{s.Name, s.File})
	}
	return nil
}

// act does what is due.
func (k *keeper) act(now time.Time) {
	if k.pid == 0 && !now.Before(k.startAt) {
		k.start(now)
	}
	if k.pid != 0 && !k.hearsBy.IsZero() && !now.Before(k.hearsBy) {
		k.pass()
	}
	switch {
	case k.pid == 0:
	case !k.killAt.IsZero() && !now.Before(k.killAt):
		k.killAt = time.Time{}
		_ = unix.Kill(k.pid, unix.SIGKILL)
	case !k.aliveBy.IsZero() && !now.Before(k.aliveBy):
		k.say("master %d said nothing for %v", k.pid, k.o.Watchdog)
		k.aliveBy, k.killAt = time.Time{}, now.Add(abortTime)
		_ = unix.Kill(k.pid, unix.SIGABRT)
	}
}

// wait waits for a message, a signal or a deadline.
func (k *keeper) wait() {
	timeout := -1
	for _, at := range []time.Time{k.aliveBy, k.killAt, k.startAt, k.hearsBy} {
		if at.IsZero() || k.pid != 0 && at.Equal(k.startAt) {
			continue
		}
		ms := int(max(0, time.Until(at)+time.Millisecond-1) / time.Millisecond)
		if timeout < 0 || ms < timeout {
			timeout = ms
		}
	}
	fds := []unix.PollFd{{Fd: int32(k.near.Fd()), Events: unix.POLLIN}, {Fd: int32(k.wake[0]), Events: unix.POLLIN}}
	if n, err := unix.Poll(fds, timeout); n > 0 && err == nil && fds[1].Revents != 0 {
		var buf [64]byte
		_, _ = unix.Read(k.wake[0], buf[:])
	}
}

// receive takes the messages that have come.
func (k *keeper) receive() {
	var buf [bufferLen]byte
	oob := make([]byte, unix.CmsgSpace(4*fdpass.MaxFiles))
	for {
		n, oobn, _, _, err := unix.Recvmsg(k.near.Fd(), buf[:], oob, unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return
		}
		k.take(parse(buf[:n]), filesOf(oob[:oobn]))
	}
}

func filesOf(oob []byte) (files []*fdpass.File) {
	list, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for i := range list {
		fds, err := unix.ParseUnixRights(&list[i])
		if err != nil {
			continue
		}
		for _, fd := range fds {
			files = append(files, fdpass.NewFile(fd))
		}
	}
	return files
}

func (k *keeper) take(m message, files []*fdpass.File) {
	now := time.Now()
	k.keep(m, files)
	if k.pid != 0 && len(m.upward) > 0 && !k.heard {
		k.heard = true
		k.pass()
	}
	if m.ready && !k.ready && k.pid != 0 {
		k.ready, k.everReady, k.readyAt = true, true, now
		k.pin()
	}
	if m.stopping {
		k.stopping, k.asked = true, nil
	}
	if k.ready && k.o.Watchdog > 0 && (m.ready || m.alive) && k.killAt.IsZero() {
		k.aliveBy = now.Add(k.o.Watchdog)
	}
	if len(m.upward) > 0 {
		_ = k.up.Send(m.upward...)
	}
}

// pin keeps the executable of a master that is ready.
func (k *keeper) pin() {
	fd, err := unix.Open("/proc/"+strconv.Itoa(k.pid)+"/exe", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return // the one of before is good, too
	}
	_ = k.good.Close()
	k.good = fdpass.NewFile(fd)
}

// start forks a master.
func (k *keeper) start(now time.Time) {
	k.ready, k.heard, k.stopping, k.aliveBy, k.killAt = false, false, false, time.Time{}, time.Time{}
	if k.hearsBy = (time.Time{}); len(k.pending) > 0 {
		k.hearsBy = now.Add(deaf)
	}
	files := []uintptr{0, 1, 2}
	names := make([]string, 0, len(k.store))
	for _, s := range k.store {
		files = append(files, uintptr(s.file.Fd()))
		names = append(names, s.name)
	}
	// The program is one of those that the child inherits, since others may be written
	// over by these.
	exe := 4 + len(k.store)
	files = append(files, uintptr(k.far.Fd()), uintptr(k.good.Fd()))
	program := "/proc/self/fd/" + strconv.Itoa(exe)
	env := slices.DeleteFunc(os.Environ(), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return slices.Contains([]string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", Variable}, name)
	})
	env = append(env, fmt.Sprintf("%s=%d %d", Variable, 3+len(k.store), exe),
		fmt.Sprintf("LISTEN_FDS=%d", len(k.store)), "LISTEN_FDNAMES="+strings.Join(names, ":"))
	if k.pings > 0 {
		env = append(env, systemd.WatchdogEnvironment(k.pings))
	}
	// A process group of its own: what a terminal sends is sent on, once.
	pid, _, err := syscall.StartProcess(program, k.o.Args, &syscall.ProcAttr{Files: files, Env: env, Sys: &syscall.SysProcAttr{Setpgid: true}})
	if err != nil {
		k.say("cannot start a master: %v", err)
		if !k.everReady {
			k.ended, k.code = true, 1
			return
		}
		k.delay(now)
		return
	}
	k.pid, k.startAt = pid, time.Time{}
}

func (k *keeper) delay(now time.Time) {
	first, last := delayFirst, delayLast
	if k.ready {
		first, last = readyFirst, readyLast
	}
	k.startAt = now.Add(min(first<<min(k.inRow, 10), last))
	k.inRow++
}

// reap waits for every child that has ended.
func (k *keeper) reap() {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		if pid == k.pid {
			k.receive() // all that it said
			k.over(status)
		}
	}
}

// over decides what the end of a master means.
func (k *keeper) over(status unix.WaitStatus) {
	now := time.Now()
	pid, lastedLong, heard := k.pid, k.ready && now.Sub(k.readyAt) >= lasted, k.heard
	k.heard = false
	k.pending, k.asked = append(k.asked, k.pending...), nil // what it was told may have come too late
	k.pid, k.aliveBy, k.killAt = 0, time.Time{}, time.Time{}
	switch {
	case status.Exited() && (k.stopping || !k.everReady):
		k.ended, k.code = true, status.ExitStatus()
		return
	case !heard && slices.ContainsFunc(k.pending, isStop):
		// It is to stop, and cannot even start.
		k.say("no master can be started to end the workers: they are told to end")
		k.abandon()
		k.ended, k.code = true, 1
		return
	case status.Exited():
		k.say("master %d exited with code %d, and is started again", pid, status.ExitStatus())
	default:
		k.say("master %d was killed by %s, and is started again", pid, unix.SignalName(status.Signal()))
	}
	switch {
	case lastedLong:
		k.inRow, k.startAt = 0, now
	case !k.everReady && k.inRow >= maxUnborn:
		k.say("no master lived to be ready: giving up")
		k.ended, k.code = true, 128+int(status.Signal())
	default:
		k.delay(now)
	}
}

func (k *keeper) say(format string, args ...any) {
	stamp := ""
	if k.o.Times {
		stamp = time.Now().UTC().Format("2006-01-02T15:04:05.000Z07:00") + " "
	}
	_, _ = fmt.Fprintf(k.o.Log, stamp+"[WARN]  keeper: "+format+"\n", args...)
}
