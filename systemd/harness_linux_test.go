package systemd

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
)

// patience bounds every wait for what is bound to happen.
const patience = 20 * time.Second

// descriptors returns what this process has open.
func descriptors(t *testing.T) []string {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	var open []string
	for _, e := range list {
		// The directory itself is among them, and gone by now.
		if target, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil {
			open = append(open, e.Name()+" "+target)
		}
	}
	return open
}

// noLeak fails the test if it ends with other files open than it began with.
func noLeak(t *testing.T) {
	t.Helper()
	before := descriptors(t)
	t.Cleanup(func() {
		if after := descriptors(t); !slices.Equal(before, after) {
			t.Errorf("open: %q, before: %q", after, before)
		}
	})
}

// startPoller starts the runtime's poller, whose descriptors stay.
func startPoller() {
	if r, w, err := os.Pipe(); err == nil {
		_ = r.SetDeadline(time.Time{})
		_, _ = r.Close(), w.Close()
	}
}

func receiver(t *testing.T) *Receiver {
	t.Helper()
	r, err := NewReceiver(filepath.Join(t.TempDir(), "notify"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = r.Close()
		ended(t, r)
	})
	return r
}

// ended waits until the Receiver's goroutine has ended, and its socket is closed.
func ended(t *testing.T, r *Receiver) {
	t.Helper()
	select {
	case <-r.ended:
	case <-time.After(patience):
		t.Error("the goroutine of the receiver does not end")
	}
}

// next returns the next notification, or error, of r.
func next(t *testing.T, r *Receiver) (Notification, error) {
	t.Helper()
	got := make(chan outcome, 1)
	go func() {
		n, err := r.Receive()
		got <- outcome{n, err}
	}()
	select {
	case o := <-got:
		return o.notification, o.err
	case <-time.After(patience):
		t.Fatal("nothing was received")
		panic("unreachable")
	}
}

// expect receives a notification of this very process, and returns it without the
// sender.
func expect(t *testing.T, r *Receiver, want Notification) Notification {
	t.Helper()
	n, err := next(t, r)
	if err != nil {
		t.Fatalf("%v, want %+v", err, want)
	}
	if n.PID != os.Getpid() || n.UID != os.Getuid() || n.GID != os.Getgid() {
		t.Errorf("the sender is %d, %d, %d", n.PID, n.UID, n.GID)
	}
	got := n
	got.PID, got.UID, got.GID, got.barrier = 0, 0, 0, nil
	if got != want {
		t.Fatalf("received %+v, want %+v", got, want)
	}
	return n
}

// service is the sending side, as a program of the manager has it.
func service(t *testing.T, r *Receiver) *Notifier {
	t.Helper()
	name, value, _ := strings.Cut(NotifyEnvironment(r.Path()), "=")
	t.Setenv(name, value)
	n := NewNotifier()
	t.Cleanup(func() { _ = n.Close() })
	return n
}

// sender is a socket that says anything, and waits while the queue is full.
func sender(t *testing.T) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

func say(fd int, r *Receiver, data string, files ...int) error {
	var rights []byte
	if len(files) > 0 {
		rights = unix.UnixRights(files...)
	}
	for {
		err := unix.Sendmsg(fd, []byte(data), rights, &unix.SockaddrUnix{Name: r.Path()}, 0)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// pipe returns both ends of one, as files that the test closes when it ends.
func pipe(t *testing.T) (r, w *fdpass.File) {
	t.Helper()
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	r, w = fdpass.NewFile(p[0]), fdpass.NewFile(p[1])
	t.Cleanup(func() { _, _ = r.Close(), w.Close() })
	return r, w
}

// hungUp reports whether nobody has the other end of a pipe any more, within patience
// when it is to wait.
func hungUp(t *testing.T, f *fdpass.File, wait time.Duration) bool {
	t.Helper()
	for {
		p := []unix.PollFd{{Fd: int32(f.Fd())}}
		_, err := unix.Poll(p, int(wait.Milliseconds()))
		if err == nil {
			return p[0].Revents&unix.POLLHUP != 0
		}
		if !errors.Is(err, unix.EINTR) {
			t.Fatal(err)
		}
	}
}
