package dispatch

import (
	"errors"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
	"github.com/f72e338e/supervisord/internal/proto"
)

// What is passed on goes to another worker, waits for one, and never comes back.
func TestPass(t *testing.T) {
	r := newRig(t, RoundRobin, Options{})
	one := r.join(1, 0)
	client := r.dial()
	h, files, err := one.read()
	if err != nil || len(files) != 1 {
		t.Fatal(h, files, err)
	}
	one.say(proto.Verdict{First: h.First, Count: 1, What: proto.Accepted})
	if err := r.d.Pass(1, 1, files[0]); err != nil {
		t.Fatal(err)
	}
	two := r.join(2, 1)
	if got := r.d.Joined(1); !slices.Equal(got, []uint64{1, 2}) {
		t.Errorf("joined %v", got)
	}
	if _, files, err = two.read(); err != nil { // and dies before it says anything
		t.Fatal(err)
	}
	fdpass.CloseAll(files)
	_ = two.ch.Close()
	r.d.Leave(1, 2)
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
		if err := r.d.Pass(1, 1, one()); err != nil {
			t.Fatalf("%d: %v", i, err)
		}
	}
	if err := r.d.Pass(1, 1, one()); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("one more: %v", err)
	}
	if err := r.d.Pass(2, 1, one()); err == nil {
		t.Error("of no handle")
	}
	r.d.Remove(1)
	if got := r.d.Joined(1); got != nil {
		t.Errorf("joined %v", got)
	}
}
