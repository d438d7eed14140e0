package dispatch

import (
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
)

// TestRetryOutlastsOtherEvents: what failed for a lack of descriptors is tried
// again although something else happens meanwhile, such as a command.
func TestRetryOutlastsOtherEvents(t *testing.T) {
	failed := make(chan error, 64)
	r := newRig(t, RoundRobin, Options{Report: func(_, _ uint64, err error) { failed <- err }})
	f := r.join(1, 0)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	client := fdpass.NewFile(fd)
	defer func() { _ = client.Close() }()
	addr := listening(t, r.d)

	var limit unix.Rlimit
	if err := unix.Prlimit(0, unix.RLIMIT_NOFILE, nil, &limit); err != nil {
		t.Fatal(err)
	}
	if err := unix.Prlimit(0, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 1, Max: limit.Max}, nil); err != nil {
		t.Fatal(err)
	}
	err = unix.Connect(fd, addr)
	var report error
	if err == nil {
		report = <-failed
	}
	for range 3 {
		r.d.Counts(1)
	}
	if err := errors.Join(err, unix.Prlimit(0, unix.RLIMIT_NOFILE, &limit, nil)); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(report, unix.EMFILE) {
		t.Fatalf("reported: %v", report)
	}
	_ = f.ch.SetReadDeadline(time.Now().Add(5 * time.Second))
	if n, err := f.take(); n != 1 || err != nil {
		t.Errorf("with descriptors again the worker got %d connections: %v", n, err)
	}
}

// listening is where handle 1 listens.
func listening(t *testing.T, d *Dispatcher) (addr unix.Sockaddr) {
	t.Helper()
	var err error
	d.do(func() { addr, err = unix.Getsockname(d.handles[1].sources[0].fd) })
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

// TestCommandAfterClose: a command that comes too late touches no descriptor, whose
// number is another's by then.
func TestCommandAfterClose(t *testing.T) {
	d, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	wake := d.wake
	d.Close()
	var files []*fdpass.File
	defer func() { fdpass.CloseAll(files) }()
	for range 64 {
		fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, fdpass.NewFile(fd))
		if fd >= wake {
			break
		}
	}
	d.Leave(0, 1)
	d.Close()
	var b [8]byte
	for _, f := range files {
		if n, err := unix.Read(f.Fd(), b[:]); err != unix.EAGAIN {
			t.Errorf("somebody wrote to descriptor %d, once the dispatcher's %d: read %d bytes, %v", f.Fd(), wake, n, err)
		}
	}
}

// TestFullChannel: a message that a channel has no room for is kept, goes to
// another worker if there is one, and else to the same one when there is room.
func TestFullChannel(t *testing.T) {
	r := newRig(t, RoundRobin, Options{})
	f, m := newFake(t, 1)
	m.Admitted = true
	stuffed := 0
	for unix.Send(m.Channel.Fd(), []byte("not a hand-over"), unix.MSG_DONTWAIT) == nil {
		stuffed++
	}
	if err := r.d.Join(1, m); err != nil {
		t.Fatal(err)
	}
	first := r.dial()
	other := r.join(2, 1)
	if _, err := other.take(); err != nil {
		t.Fatal(err)
	}
	if got := who(t, first); got != 2 {
		t.Errorf("answered by %d", got)
	}
	r.leave(other)
	second := r.dial()
	buf := make([]byte, 64)
	for range stuffed {
		if _, _, err := f.ch.Recv(buf, 0); err != nil {
			t.Fatal(err)
		}
		r.d.Counts(1) // an event that is none of a channel's
	}
	_ = f.ch.SetReadDeadline(time.Now().Add(5 * time.Second))
	if n, err := f.take(); n != 1 || err != nil {
		t.Fatalf("with room again the worker got %d: %v", n, err)
	}
	if got := who(t, second); got != 1 {
		t.Errorf("answered by %d", got)
	}
}
