package systemd

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
)

const notifySocket = "NOTIFY_SOCKET"

// maxFiles is how many files one message may carry (SCM_MAX_FD, unix(7)).
const maxFiles = fdpass.MaxFiles

// Notifier sends notifications to the manager that started this process. It may
// be used from several goroutines. The zero value, and one made without
// NOTIFY_SOCKET, sends nothing and reports success.
type Notifier struct {
	address string // as in NOTIFY_SOCKET, "" for none
	socket  *fdpass.File
	err     error // why there is no socket

	connected bool                    // to the manager; there is no address then
	gone      atomic.Pointer[os.File] // what Gone waits on
}

// NewNotifier reads NOTIFY_SOCKET and makes a socket to send from. It does not
// connect: each message names its address, so a manager that was executed again
// is found. The variable stays in the environment, for an image that this process
// may become; see UnsetEnvironment. An address that cannot be used (systemd also
// knows "vsock:") or a lack of descriptors shows as the error of each Send.
func NewNotifier() *Notifier {
	n := &Notifier{address: os.Getenv(notifySocket)}
	switch {
	case n.address == "":
		return n
	case n.address[0] != '/' && n.address[0] != '@', len(n.address) < 2:
		n.err = fmt.Errorf("%s=%s: %w", notifySocket, n.address, unix.EAFNOSUPPORT)
		return n
	case len(n.address) > 107:
		n.err = fmt.Errorf("%s=%s: %w", notifySocket, n.address, unix.ENAMETOOLONG)
		return n
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		n.err = fmt.Errorf("socket for notifications: %w", err)
		return n
	}
	// As sd_notify: a message with files may wait long in the queue. What the
	// kernel gives is enough if this fails.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 8<<20)
	n.socket = fdpass.NewFile(fd)
	return n
}

// to names the manager for messages.
func (n *Notifier) to() string {
	if n.connected {
		return ""
	}
	return " " + n.address
}

// Enabled reports whether there is a manager to tell.
func (n *Notifier) Enabled() bool { return n.address != "" || n.connected }

// Address is the manager's socket as NOTIFY_SOCKET named it, "" for none.
func (n *Notifier) Address() string { return n.address }

// UnsetEnvironment removes NOTIFY_SOCKET from the environment of this process,
// so that children do not speak to our manager. The Notifier goes on working.
func (n *Notifier) UnsetEnvironment() { _ = os.Unsetenv(notifySocket) }

// Close closes the socket.
func (n *Notifier) Close() error {
	if n.socket == nil {
		return nil
	}
	err := n.socket.Close()
	if f := n.gone.Load(); f != nil {
		_ = f.Close()
	}
	return err
}

// Send sends the fields as one message. It never blocks: when the manager's
// queue is full it returns EAGAIN and nothing was sent; what matters (READY=1) is
// to be sent again then. Other errors: ENOENT or ECONNREFUSED when the manager is
// gone, EACCES, EMSGSIZE, fdpass.ErrClosed, and those of NewNotifier.
func (n *Notifier) Send(fields ...string) error { return n.SendFiles(nil, fields...) }

// SendFiles is Send with files, which it borrows: for FDSTORE=1 (sd_pid_notify_with_fds(3))
// and, with the write end of a pipe, BARRIER=1, which must be the only field.
// Further errors: E2BIG for more than 253 files, ETOOMANYREFS.
func (n *Notifier) SendFiles(files []*fdpass.File, fields ...string) error {
	if !n.Enabled() || len(fields) == 0 {
		return nil
	}
	if n.err != nil {
		return n.err
	}
	fd := n.socket.Fd()
	if fd < 0 {
		return fmt.Errorf("notify: %w", fdpass.ErrClosed)
	}
	if len(files) > maxFiles {
		return fmt.Errorf("notify: %w", unix.E2BIG)
	}
	var rights []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			if fds[i] = f.Fd(); fds[i] < 0 {
				return fmt.Errorf("notify: %w", fdpass.ErrClosed)
			}
		}
		rights = unix.UnixRights(fds...)
	}
	message := []byte(strings.Join(fields, "\n"))
	for {
		// A new address each time: x/sys writes to it.
		var to unix.Sockaddr
		if !n.connected {
			to = &unix.SockaddrUnix{Name: n.address}
		}
		err := unix.Sendmsg(fd, message, rights, to, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("notify%s: %w", n.to(), err)
		}
	}
}

// The fields of sd_notify(3) that this service says.

// Ready says that start-up, or the reload that Reloading began, is complete.
func Ready() string { return "READY=1" }

// Reloading says that a reload has begun. Under Type=notify-reload the manager
// compares monotonic, the time since boot at which it did, with its own request:
// use Monotonic. Ready ends it.
func Reloading(monotonic time.Duration) string {
	return "RELOADING=1\nMONOTONIC_USEC=" + microseconds(monotonic)
}

// Stopping says that the service is on its way out.
func Stopping() string { return "STOPPING=1" }

// Status is a line for humans; what would end the line or the message becomes a blank.
func Status(text string) string {
	return "STATUS=" + strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
}

// MainPID says which process is the main one.
func MainPID(pid int) string { return "MAINPID=" + strconv.Itoa(pid) }

// ExtendTimeout asks for d more, from now on, for a start, reload or stop under
// way; it is to be said again before that time is over.
func ExtendTimeout(d time.Duration) string { return "EXTEND_TIMEOUT_USEC=" + microseconds(d) }

// Watchdog says that all is well.
func Watchdog() string { return "WATCHDOG=1" }

// Monotonic is the time of CLOCK_MONOTONIC, for Reloading.
func Monotonic() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

func microseconds(d time.Duration) string { return strconv.FormatInt(max(d, 0).Microseconds(), 10) }

// WatchdogInterval is the time after which the manager takes this process for
// hung, from WATCHDOG_USEC (sd_watchdog_enabled(3)); Watchdog is to be sent each
// half of it. It is false when no watchdog is wanted, or from another process
// (WATCHDOG_PID), or when the value is not understood. The environment is left
// as it is.
func WatchdogInterval() (time.Duration, bool) {
	if pid := os.Getenv("WATCHDOG_PID"); pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return 0, false
	}
	const most = int64(1<<63-1) / int64(time.Microsecond)
	usec, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	if err != nil || usec <= 0 || usec > most {
		return 0, false
	}
	return time.Duration(usec) * time.Microsecond, true
}
