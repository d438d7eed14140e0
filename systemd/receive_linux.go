package systemd

import (
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

// maxNotification is systemd's NOTIFY_BUFFER_MAX.
const maxNotification = 4096

// maxPath is the longest path that fits sun_path with its terminating zero (unix(7)).
const maxPath = 107

// Receiver is the manager's side: a socket to which services send notifications. It is
// made by NewReceiver and ends with Close. Its methods may be called from several
// goroutines.
//
// No file that comes along with a message ever becomes a descriptor of this process.
// Closing one may take as long as its sender likes (socket(7), SO_LINGER), and so may
// execve(2) in a child that inherited one of a file system in user space. A message is
// therefore looked at where it is, in the queue, without room for files, and taken out
// without room for them: then the kernel drops them. The files of a barrier stay in the
// queue, with their message, until Done.
//
//	queue ──MSG_PEEK──▶ parse ──▶ Receive ──▶ caller
//	  │                                         │
//	  │    BARRIER=1: waits here until Done ◀───┘
//	  ▼
//	taken out, files dropped: the sender's barrier ends
//
// One goroutine of the Receiver does this, because taking a message out may block in
// the kernel as closing would. Then nothing more is received, and that is all: the
// senders hold up themselves.
type Receiver struct {
	path        string
	dev, ino    uint64   // of path
	file        *os.File // owned and closed by run
	raw         syscall.RawConn
	outcomes    chan outcome // unbuffered: what nobody receives stays in the kernel's queue
	closing     chan struct{}
	ended       chan struct{} // run has returned
	closeOnce   sync.Once
	buf         [maxNotification]byte // of run
	credentials []byte                // of run, a control message
}

// outcome is what Receive returns.
type outcome struct {
	notification Notification
	err          error
}

// NewReceiver makes a socket at path, an absolute path of at most 107 bytes at which
// nothing is, and receives from now on. Whoever can reach the path may send, as its
// mode is 0666: its directory, which is the caller's, decides who that is.
//
// Errors: EINVAL for a path that is not absolute or holds a zero byte, ENAMETOOLONG,
// EADDRINUSE when something is there, EACCES also when the path was replaced
// meanwhile, what bind(2) and chmod(2) give, EMFILE, ENFILE.
func NewReceiver(path string) (*Receiver, error) {
	r, err := newReceiver(path)
	if err != nil {
		return nil, fmt.Errorf("cannot receive notifications at %s: %w", path, err)
	}
	go r.run()
	return r, nil
}

// AdoptReceiver goes on with the socket of a Receiver of an earlier process, which was
// kept while its path was left alone. It takes the file, also on an error. Errors: EINVAL
// for a file that is no datagram socket bound to path, what lstat(2) gives.
func AdoptReceiver(path string, file *fdpass.File) (*Receiver, error) {
	fail := func(err error) (*Receiver, error) {
		_ = file.Close()
		return nil, fmt.Errorf("cannot receive notifications at %s: %w", path, err)
	}
	typ, err := unix.GetsockoptInt(file.Fd(), unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return fail(os.NewSyscallError("getsockopt SO_TYPE", err))
	}
	name, err := unix.Getsockname(file.Fd())
	if err != nil {
		return fail(os.NewSyscallError("getsockname", err))
	}
	if sa, ok := name.(*unix.SockaddrUnix); !ok || sa.Name != path || typ != unix.SOCK_DGRAM {
		return fail(unix.EINVAL)
	}
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return fail(os.NewSyscallError("lstat", err))
	}
	if err := unix.SetNonblock(file.Fd(), true); err != nil {
		return fail(err)
	}
	r := receiverOn(file.Release(), path)
	r.dev, r.ino = uint64(st.Dev), st.Ino
	if err = r.file.SetReadDeadline(time.Time{}); err == nil {
		r.raw, err = r.file.SyscallConn()
	}
	if err != nil {
		_ = r.file.Close()
		return nil, err
	}
	go r.run()
	return r, nil
}

// SyscallConn lends the socket, for whoever is to keep it.
func (r *Receiver) SyscallConn() (syscall.RawConn, error) { return r.file.SyscallConn() }

func receiverOn(fd int, path string) *Receiver {
	return &Receiver{path: path, file: os.NewFile(uintptr(fd), path), outcomes: make(chan outcome),
		closing: make(chan struct{}), ended: make(chan struct{}), credentials: make([]byte, unix.CmsgSpace(unix.SizeofUcred))}
}

func newReceiver(path string) (*Receiver, error) {
	switch {
	case !strings.HasPrefix(path, "/"), strings.ContainsRune(path, 0):
		return nil, fmt.Errorf("not an absolute path: %w", unix.EINVAL)
	case len(path) > maxPath:
		return nil, fmt.Errorf("%w (%d bytes; the path of a Unix socket has at most %d)", unix.ENAMETOOLONG, len(path), maxPath)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	r := receiverOn(fd, path)
	if err := r.bind(fd); err != nil {
		_ = r.file.Close()
		return nil, err
	}
	return r, nil
}

// bind gives the socket its path; on an error there is none.
func (r *Receiver) bind(fd int) (err error) {
	// Without the poller nothing could wake Receive.
	if err := r.file.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	if r.raw, err = r.file.SyscallConn(); err != nil {
		return err
	}
	// Before bind(2): a message that comes earlier would have no credentials.
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1); err != nil {
		return os.NewSyscallError("setsockopt SO_PASSCRED", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: r.path}); err != nil {
		return os.NewSyscallError("bind", err)
	}
	if err := r.open(); err != nil {
		return errors.Join(err, r.unlink())
	}
	return nil
}

// open lets everybody send who can reach the path. The directory may be the sender's,
// who could put a link in place of the socket to have the mode of another file
// changed: so no name is resolved twice, and nothing but a socket of one name is
// touched. (The umask, which could do the same at bind(2), is the whole process's.)
func (r *Receiver) open() error {
	var st, now unix.Stat_t
	if err := unix.Lstat(r.path, &st); err != nil {
		return os.NewSyscallError("lstat", err)
	}
	r.dev, r.ino = uint64(st.Dev), st.Ino
	fd, err := unix.Open(r.path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("open", err)
	}
	defer unix.Close(fd)
	if err := unix.Fstat(fd, &now); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	if now.Mode&unix.S_IFMT != unix.S_IFSOCK || now.Nlink != 1 || now.Dev != st.Dev || now.Ino != st.Ino {
		return fmt.Errorf("the path was replaced meanwhile: %w", unix.EACCES)
	}
	// fchmodat2(2), which would do without /proc, is of Linux 6.6.
	return os.NewSyscallError("chmod", unix.Chmod("/proc/self/fd/"+strconv.Itoa(fd), 0o666))
}

// unlink removes the path if it is still ours.
func (r *Receiver) unlink() error {
	var st unix.Stat_t
	if unix.Lstat(r.path, &st) != nil || uint64(st.Dev) != r.dev || st.Ino != r.ino {
		return nil
	}
	if err := unix.Unlink(r.path); err != nil && err != unix.ENOENT {
		return fmt.Errorf("cannot remove %s: %w", r.path, err)
	}
	return nil
}

// Path is where services send to: the value of their NOTIFY_SOCKET.
func (r *Receiver) Path() string { return r.path }

// Receive returns the next notification; it blocks until there is one. An empty message
// is one that says nothing. After a barrier it blocks until Done was called, too.
//
// Errors: a [DroppedError] for a message that was dropped, after which the caller goes
// on; os.ErrClosed after Close, which also ends a Receive that is waiting; any other
// is the socket's own, from recvmsg(2), and not to be expected.
func (r *Receiver) Receive() (Notification, error) {
	select {
	case got := <-r.outcomes:
		return got.notification, got.err
	case <-r.closing:
		return Notification{}, fmt.Errorf("receive notifications at %s: %w", r.path, os.ErrClosed)
	}
}

// Close removes the path, unless it is another file's by now, and ends every Receive
// and every barrier; what nobody has received is lost. It does not wait for the kernel
// to close the socket, which takes as long as closing the files in its queue does.
// Errors: os.ErrClosed when called again, what unlink(2) gives; the Receiver is closed
// in any case.
func (r *Receiver) Close() error {
	err := fmt.Errorf("receiver of notifications at %s: %w", r.path, os.ErrClosed)
	r.closeOnce.Do(func() {
		err = r.unlink()
		_ = r.file.SetReadDeadline(time.Unix(1, 0)) // wakes run
		close(r.closing)
	})
	return err
}

// run hands out the messages in the queue, one by one, until Close. It ends only when
// Close is done with the file: whoever is the last to use an os.File closes it, and
// that is to be run, which may block.
func (r *Receiver) run() {
	defer close(r.ended)
	defer r.file.Close()
	for {
		var n Notification
		message, control, flags, err := r.peek()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			<-r.closing
			return
		}
		seen := err == nil
		if seen {
			n, err = judge(message, control, flags)
		}
		select {
		case r.outcomes <- outcome{n, err}:
		case <-r.closing:
			return
		}
		if n.barrier != nil {
			select {
			case <-n.barrier.done:
			case <-r.closing:
				return
			}
		}
		if seen {
			r.drop()
		}
	}
}

// peek returns the first message of the queue, which stays there, its control message
// and MSG_ flags; it blocks until there is one. The next call writes over them.
func (r *Receiver) peek() (message, control []byte, flags int, err error) {
	var size, controlSize int
	var rerr error
	err = r.raw.Read(func(fd uintptr) bool {
		for {
			size, controlSize, flags, _, rerr = unix.Recvmsg(int(fd), r.buf[:], r.credentials, unix.MSG_PEEK|unix.MSG_DONTWAIT)
			if rerr != unix.EINTR {
				return rerr != unix.EAGAIN
			}
		}
	})
	if err == nil {
		err = os.NewSyscallError("recvmsg", rerr)
	}
	if err != nil {
		return nil, nil, 0, fmt.Errorf("receive notifications at %s: %w", r.path, err)
	}
	return r.buf[:size], r.credentials[:controlSize], flags, nil
}

// drop takes the first message out of the queue. Its files are dropped by the kernel,
// which may block.
func (r *Receiver) drop() {
	_ = r.raw.Read(func(fd uintptr) bool {
		for {
			if _, _, _, _, err := unix.Recvmsg(int(fd), nil, nil, unix.MSG_DONTWAIT); err != unix.EINTR {
				return true
			}
		}
	})
}

// NotifyEnvironment is the variable that names a Receiver's path to a service.
func NotifyEnvironment(path string) string { return notifySocket + "=" + path }

// WatchdogEnvironment is the variable that asks a service to send WATCHDOG=1 at least
// each d, of which less than a microsecond counts as one. Without WATCHDOG_PID beside
// it every process of the service is asked (sd_watchdog_enabled(3)).
func WatchdogEnvironment(d time.Duration) string {
	return "WATCHDOG_USEC=" + microseconds(max(d, time.Microsecond))
}
