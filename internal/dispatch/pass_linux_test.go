package dispatch

import (
	"errors"
	"net"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
)

// What is passed on goes to another worker, waits for one, and never comes back.
func TestPass(t *testing.T) {
	r := newRig(t, RoundRobin, Options{})
	one := r.join(1, 0)
	client := r.dial()
	files, err := one.read()
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	if err := r.d.Pass(1, Passed{From: 1, Connection: files[0]}); err != nil {
		t.Fatal(err)
	}
	two := r.join(2, 1)
	if got := r.d.Joined(1); !slices.Equal(got, []uint64{1, 2}) {
		t.Errorf("joined %v", got)
	}
	r.leave(two) // which has not read it
	three := r.join(3, 1)
	if n, err := three.take(); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	if by := who(t, client); by != 3 {
		t.Errorf("worker %d answered", by)
	}
}

// Connections that nobody takes are refused at some number, and the rest is closed
// with the handle.
func TestPassBounded(t *testing.T) {
	r := newRig(t, RoundRobin, Options{})
	r.join(1, 0)
	one := func() *fdpass.File {
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		_ = unix.Close(pair[1])
		return fdpass.NewFile(pair[0])
	}
	for i := range maxPassed {
		if err := r.d.Pass(1, Passed{From: 1, Connection: one()}); err != nil {
			t.Fatalf("%d: %v", i, err)
		}
	}
	if err := r.d.Pass(1, Passed{From: 1, Connection: one()}); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("one more: %v", err)
	}
	if err := r.d.Pass(2, Passed{From: 1, Connection: one()}); err == nil {
		t.Error("of no handle")
	}
	r.d.Remove(1)
	if got := r.d.Joined(1); got != nil {
		t.Errorf("joined %v", got)
	}
}

// What waits inside outlasts the sockets, and goes to whoever comes.
func TestDropSockets(t *testing.T) {
	r := newRig(t, RoundRobin, Options{})
	one := r.join(1, 0)
	waits := r.dial()
	files, err := one.read()
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	if err := r.d.Pass(1, Passed{From: 1, Connection: files[0]}); err != nil {
		t.Fatal(err)
	}
	r.d.DropSockets(1)
	if c, err := net.Dial("tcp", r.addr); err == nil {
		_ = c.Close()
		t.Error("it still listens")
	}
	again := newRig(t, RoundRobin, Options{})
	var file *fdpass.File
	again.d.do(func() { file, err = fdpass.NewFile(again.d.handles[1].sources[0].fd).Dup() })
	if err == nil {
		err = r.d.AddSocket(1, file)
	}
	if err != nil {
		t.Fatal(err)
	}
	arrives := again.dial()
	two := r.join(2, 1)
	for n := 0; n < 2; {
		got, err := two.take()
		if err != nil {
			t.Fatal(err)
		}
		n += got
	}
	if a, b := who(t, waits), who(t, arrives); a != 2 || b != 2 {
		t.Errorf("answered by %d and %d", a, b)
	}
}
