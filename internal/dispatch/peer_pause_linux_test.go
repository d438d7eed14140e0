package dispatch

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/internal/nodeipc"
)

// What comes while Hear wants no more waits in the channel, and its end too.
func TestPeerResumes(t *testing.T) {
	r := newRig(t, RoundRobin, Options{})
	n := r.peerOn(1)
	n.pause(true)
	n.say(`"one"`)
	r.settle()
	c := r.dial()
	o := n.newconn()
	n.say(lineAck, o.answer(true), `"two"`)
	_, _ = unix.Write(o.fd, []byte{1})
	n.close()
	r.settle()
	if got := n.lines(); !slices.Equal(got, []string{`"one"`}) || len(n.ends) > 0 {
		t.Fatalf("heard %q", got)
	}
	if _, handed, _ := r.d.Counts(1); handed != 0 {
		t.Errorf("%d handed over", handed)
	}
	n.pause(false)
	r.d.Resume(1)
	if err := n.ended(); !errors.Is(err, io.EOF) {
		t.Errorf("ended with %v", err)
	}
	if got := n.lines(); !slices.Equal(got, []string{`"one"`, `"two"`}) {
		t.Errorf("heard %q", got)
	}
	if by := who(t, c); by != 1 {
		t.Errorf("answered by %d", by)
	}
	r.d.Resume(1)
	r.d.Resume(2)
}

// Each time Hear wants a little more it gets more, until all was heard.
func TestPeerResumesOften(t *testing.T) {
	r := newRig(t, RoundRobin, Options{})
	n := r.peer(1)
	n.pause(true)
	line := `"` + strings.Repeat("x", 8<<10) + `"`
	const all = 200
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range all {
			n.say(fmt.Sprint(i), line)
		}
	}()
	last := 0
	for i := 0; last < 2*all; i++ {
		r.d.Resume(1)
		got := len(n.lines())
		if got-last > 5*peerBuffer/(8<<10) { // two pieces, the first of which came by itself
			t.Errorf("%d lines at once", got-last)
		}
		last = got
	}
	<-done
	for i, got := range n.lines() {
		if want := fmt.Sprint(i / 2); i%2 == 0 && got != want || i%2 == 1 && got != line {
			t.Fatalf("line %d is %.20q", i, got)
		}
	}
}

// A long line, and lines in pieces, are as the worker said them.
func TestPeerLinesInPieces(t *testing.T) {
	r := newRig(t, RoundRobin, Options{})
	n := r.peer(1)
	want := []string{`""`, `"` + strings.Repeat("y", nodeipc.MaxLine-2) + `"`, `"short"`}
	for _, l := range want {
		for b := []byte(l + "\n"); len(b) > 0; {
			k, err := unix.Write(n.fd, b[:min(len(b), 1+len(b)/2)])
			if err != nil {
				t.Fatal(err)
			}
			b = b[k:]
			r.settle()
		}
	}
	r.until("all was heard", func() bool { return len(n.lines()) == 3 })
	if !slices.Equal(n.lines(), want) {
		t.Error("heard otherwise")
	}
	n.say(string(make([]byte, nodeipc.MaxLine+1)))
	if err := n.ended(); !errors.Is(err, nodeipc.ErrTooLong) {
		t.Errorf("ended with %v", err)
	}
}

// What is behind a descriptor that this process has no room for is heard at once, too,
// and not only with what comes next.
func TestPeerHeardWithoutDescriptors(t *testing.T) {
	r := newRig(t, RoundRobin, Options{})
	n := r.peer(1)
	a, _ := pipe(t)
	r.lacking(func() {
		n.sayWith(lineHandle, a)
		n.say(`"behind it"`)
	})
	n.reads(lineNack)
	r.settle()
	if got := n.lines(); !slices.Equal(got, []string{lineHandle, `"behind it"`}) {
		t.Errorf("heard %q", got)
	}
	n.sayWith(lineHandle, a)
	n.reads(lineAck)
}

// lacking lets this process open nothing while the dispatcher takes note of what was
// done, all at once.
func (r *rig) lacking(do func()) {
	r.t.Helper()
	var limit unix.Rlimit
	if err := unix.Prlimit(0, unix.RLIMIT_NOFILE, nil, &limit); err != nil {
		r.t.Fatal(err)
	}
	r.d.do(func() {
		do()
		if err := unix.Prlimit(0, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 1, Max: limit.Max}, nil); err != nil {
			r.t.Error(err)
		}
	})
	r.settle()
	if err := unix.Prlimit(0, unix.RLIMIT_NOFILE, &limit, nil); err != nil {
		r.t.Fatal(err)
	}
}
