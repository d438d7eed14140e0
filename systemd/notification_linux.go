package systemd

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// What is wrong with a message, as the cause of a [DroppedError].
var (
	// ErrTooLong means more than 4096 bytes.
	ErrTooLong = errors.New("longer than 4096 bytes")
	// ErrNoCredentials means that the kernel does not say who sent it: a process of
	// another PID namespace, which has no PID here.
	ErrNoCredentials = errors.New("without the PID of its sender")
	// ErrZeroByte means a zero byte other than the last one.
	ErrZeroByte = errors.New("with a zero byte inside")
	// ErrBarrier means BARRIER=1 with another field, or without a file.
	ErrBarrier = errors.New("BARRIER=1 with another field or without a file")
)

// DroppedError means that a message was dropped, with its files. The Receiver is as
// well as before.
type DroppedError struct {
	PID int   // its sender's, 0 when that is not known
	Err error // ErrTooLong, ErrNoCredentials, ErrZeroByte or ErrBarrier
}

func (e *DroppedError) Error() string {
	return fmt.Sprintf("notification of process %d dropped: %v", e.PID, e.Err)
}

func (e *DroppedError) Unwrap() error { return e.Err }

// Notification is a message of a service, and who sent it. Fields that are not here
// are ignored, and so is a value that is not understood, as if it were not there. When
// a field is there several times, the first one counts.
type Notification struct {
	// Start-up or a reload is complete; a reload has begun; the end has begun. When
	// several are said, Stopping wins, and Ready with Reloading is a reload that is
	// complete already.
	Ready, Reloading, Stopping bool
	// Monotonic is when the reload began, by CLOCK_MONOTONIC; 0: not said.
	Monotonic time.Duration

	// Status is a line for humans, valid UTF-8, that may hold control characters
	// (never \n, \r or \x00). HasStatus with "": the line before is no longer true, also
	// when it was to be replaced by something that is not UTF-8.
	Status    string
	HasStatus bool
	Errno     int // why the service failed, 1 to 4095 (errno(3)); 0: not said, or no failure
	// MainPID is which process is the main one; 0: not said. Whoever may send may name
	// any process: the receiver checks whose it is.
	MainPID int

	Watchdog        bool // all is well
	WatchdogTrigger bool // act as if the watchdog had run out
	// WatchdogTimeout is how long the service may be silent from now on, if
	// HasWatchdogTimeout; 0: for ever.
	WatchdogTimeout    time.Duration
	HasWatchdogTimeout bool
	// ExtendTimeout is how much more time, from now on, a start, reload or stop wants;
	// 0: not said.
	ExtendTimeout time.Duration

	// Barrier means that the sender waits for Done. Nothing else is said then.
	Barrier bool

	// The sender when it sent, as seen from our namespaces (unix(7), SCM_CREDENTIALS).
	// It may be gone, and its PID another's. A sender with CAP_SYS_ADMIN may name
	// another PID, as systemd-notify(1) does, and with CAP_SETUID and CAP_SETGID
	// another user and group.
	PID, UID, GID int

	barrier *barrier
}

// barrier is a sender that waits for us.
type barrier struct {
	once sync.Once
	done chan struct{}
}

// Done lets the sender of a barrier go on (sd_notify_barrier(3)). It is called when
// this notification and, so, all before it have been acted on; until then Receive
// returns nothing more. For other notifications, and when called again, it does
// nothing. It never blocks, and any goroutine may call it.
func (n Notification) Done() {
	if n.barrier != nil {
		n.barrier.once.Do(func() { close(n.barrier.done) })
	}
}

// judge returns what a message says, or a DroppedError. There was room in control for
// the credentials, which come first, and for nothing else: MSG_CTRUNC says that files
// came along, though not how many. Several with BARRIER=1, which systemd does not
// accept, are nevertheless closed by it at the same moment, and that is all the sender
// can see.
func judge(message, control []byte, flags int) (Notification, error) {
	sender := credentials(control)
	n, err := parse(message)
	switch {
	case flags&unix.MSG_TRUNC != 0:
		err = ErrTooLong
	case sender.Pid <= 0:
		err = ErrNoCredentials
	case n.Barrier && flags&unix.MSG_CTRUNC == 0:
		err = ErrBarrier
	}
	if err != nil {
		return Notification{}, &DroppedError{PID: int(sender.Pid), Err: err}
	}
	if n.Barrier {
		n.barrier = &barrier{done: make(chan struct{})}
	}
	n.PID, n.UID, n.GID = int(sender.Pid), int(sender.Uid), int(sender.Gid)
	return n, nil
}

// credentials returns those of a control message, with PID 0 when there are none.
func credentials(control []byte) unix.Ucred {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return unix.Ucred{}
	}
	for _, m := range messages {
		if c, err := unix.ParseUnixCredentials(&m); err == nil {
			return *c
		}
	}
	return unix.Ucred{}
}

// parse reads the fields of a message, as systemd does (sd_notify(3)): lines end in \n
// or \r, empty ones do not count, a zero byte may be the last. Errors: ErrZeroByte,
// ErrBarrier for one with other fields.
func parse(message []byte) (Notification, error) {
	var n Notification
	message = bytes.TrimSuffix(message, []byte{0})
	if bytes.IndexByte(message, 0) >= 0 {
		return n, ErrZeroByte
	}
	said := map[string]bool{}
	fields := strings.FieldsFunc(string(message), func(r rune) bool { return r == '\n' || r == '\r' })
	for _, f := range fields {
		name, value, ok := strings.Cut(f, "=")
		switch {
		case !ok:
		case value == "1" && n.flag(name): // again with another value is no denial
		case !said[name]:
			said[name] = true
			n.set(name, value)
		}
	}
	if n.Barrier && len(fields) > 1 {
		return Notification{}, ErrBarrier
	}
	return n, nil
}

// flag notes a field that knows only one value, 1, and reports whether name is one.
func (n *Notification) flag(name string) bool {
	switch name {
	case "READY":
		n.Ready = true
	case "RELOADING":
		n.Reloading = true
	case "STOPPING":
		n.Stopping = true
	case "BARRIER":
		n.Barrier = true
	default:
		return false
	}
	return true
}

// set notes a field that has a value, if the value can be understood.
func (n *Notification) set(name, value string) {
	switch name {
	case "STATUS":
		n.HasStatus = true
		if utf8.ValidString(value) {
			n.Status = value
		}
	case "ERRNO":
		n.Errno = number(value, 4095) // MAX_ERRNO of the kernel
	case "MAINPID":
		n.MainPID = number(value, math.MaxInt32)
	case "WATCHDOG":
		n.Watchdog, n.WatchdogTrigger = value == "1", value == "trigger"
	case "WATCHDOG_USEC":
		n.WatchdogTimeout, n.HasWatchdogTimeout = duration(value)
	case "EXTEND_TIMEOUT_USEC":
		n.ExtendTimeout, _ = duration(value)
	case "MONOTONIC_USEC":
		n.Monotonic, _ = duration(value)
	}
}

// number reads a number of 1 to most; 0 for anything else.
func number(text string, most uint64) int {
	v, err := strconv.ParseUint(text, 10, 64)
	if err != nil || v > most {
		return 0
	}
	return int(v)
}

// mostMicroseconds is the longest time.Duration, 292 years.
const mostMicroseconds = math.MaxInt64 / int64(time.Microsecond)

// duration reads microseconds. All bits set is no time at all (systemd's infinity), and
// counts as 0 there, too; more than a time.Duration can hold is as much as it can.
func duration(text string) (time.Duration, bool) {
	v, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, false
	}
	if v == math.MaxUint64 {
		return 0, true
	}
	return time.Duration(min(v, uint64(mostMicroseconds))) * time.Microsecond, true
}
