package worker

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
)

// turned returns a listener that has a turnstile.
func turned(t *testing.T) *listener {
	t.Helper()
	l, err := alone(t).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	own := l.(*listener)
	t.Cleanup(func() { _ = own.Close() })
	if own.turn = newTurnstile(own); own.turn == nil {
		t.Fatal("the runtime's epoll set was not found")
	}
	return own
}

// events returns what the socket is registered for in the runtime's epoll set, 0
// when it is not.
func (l *listener) events(t *testing.T) (events uint32) {
	t.Helper()
	raw, err := l.SyscallConn()
	if err != nil {
		return 0
	}
	_ = raw.Control(func(fd uintptr) {
		text, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", l.turn.epfd))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			var n int
			var bits uint32
			if _, err := fmt.Sscanf(line, "tfd: %d events: %x", &n, &bits); err == nil && n == int(fd) {
				events = bits
			}
		}
	})
	return events
}

func (l *listener) isExclusive(t *testing.T) bool { return l.events(t)&unix.EPOLLEXCLUSIVE != 0 }

func accepted(l net.Listener) <-chan error {
	ch := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			_ = c.Close()
		}
		ch <- err
	}()
	return ch
}

// The socket is registered while somebody is in Accept, and only then.
func TestTurnstileIsThereInAcceptOnly(t *testing.T) {
	l := turned(t)
	if e := l.events(t); e != 0 {
		t.Fatalf("registered for %x before Accept", e)
	}
	for range 3 {
		got := accepted(l)
		eventually(t, "an exclusive registration", func() bool { return l.isExclusive(t) })
		dial(t, l.Addr().String())
		if err := <-got; err != nil {
			t.Fatal(err)
		}
		if e := l.events(t); e != 0 {
			t.Fatalf("registered for %x after Accept", e)
		}
	}
}

func TestTurnstileOfALoopStays(t *testing.T) {
	l := turned(t)
	l.turn.loops()
	got := accepted(l)
	dial(t, l.Addr().String())
	if err := <-got; err != nil {
		t.Fatal(err)
	}
	if !l.isExclusive(t) {
		t.Fatal("not registered between two calls of Accept")
	}
	l.turn.away()
	if e := l.events(t); e != 0 {
		t.Fatalf("registered for %x, though away", e)
	}
	got = accepted(l)
	_ = l.SetDeadline(time.Unix(1, 0))
	if err := <-got; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	if e := l.events(t); e != 0 {
		t.Fatalf("registered for %x after an error", e)
	}
}

// Two goroutines in Accept share the registration; when one leaves the other is
// still woken.
func TestTurnstileForTwo(t *testing.T) {
	l := turned(t)
	first, second := accepted(l), accepted(l)
	for range 2 {
		eventually(t, "an exclusive registration", func() bool { return l.isExclusive(t) })
		dial(t, l.Addr().String())
		select {
		case err := <-first:
			if err != nil {
				t.Fatal(err)
			}
			first = nil
		case err := <-second:
			if err != nil {
				t.Fatal(err)
			}
			second = nil
		}
	}
	if e := l.events(t); e != 0 {
		t.Fatalf("registered for %x with nobody in Accept", e)
	}
}

// A wake-up that somebody else got and did nothing with is made good by look.
func TestTurnstileLooks(t *testing.T) {
	l := turned(t)
	got := accepted(l)
	eventually(t, "an exclusive registration", func() bool { return l.isExclusive(t) })
	// Another holder of the socket, which is first in the queue and does nothing.
	raw, err := l.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(ep)
	asleep := make(chan error, 1)
	_ = raw.Control(func(fd uintptr) {
		ev := unix.EpollEvent{Events: exclusively}
		err = unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, int(fd), &ev)
		l.turn.look() // and with it we are behind
	})
	if err != nil {
		t.Fatal(err)
	}
	tid := make(chan int, 1)
	go func() {
		tid <- unix.Gettid()
		_, err := unix.EpollWait(ep, make([]unix.EpollEvent, 1), -1)
		asleep <- err
	}()
	path := fmt.Sprintf("/proc/self/task/%d/syscall", <-tid)
	eventually(t, "a thread in epoll_wait", func() bool {
		text, _ := os.ReadFile(path)
		number, _, _ := strings.Cut(string(text), " ")
		return number == strconv.Itoa(unix.SYS_EPOLL_PWAIT) || number == strconv.Itoa(unix.SYS_EPOLL_WAIT)
	})
	dial(t, l.Addr().String())
	if err := <-asleep; err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-got:
		t.Fatalf("two were woken for one connection: %v", err)
	case <-time.After(20 * time.Millisecond): // nothing can be waited for: the point is that nothing happens
	}
	l.turn.look()
	if err := <-got; err != nil {
		t.Fatal(err)
	}
}

// A worker that leaves is woken together with all others, so that it cannot take a
// wake-up with it.
func TestTurnstileOfOneWhoLeaves(t *testing.T) {
	l := turned(t)
	got := accepted(l)
	eventually(t, "an exclusive registration", func() bool { return l.isExclusive(t) })
	l.turn.stay()
	if e := l.events(t); e&unix.EPOLLEXCLUSIVE != 0 || e&unix.EPOLLIN == 0 {
		t.Fatalf("registered for %x", e)
	}
	dial(t, l.Addr().String())
	if err := <-got; err != nil {
		t.Fatal(err)
	}
	if l.events(t) == 0 {
		t.Fatal("not registered any more")
	}
}

// Connections that come one after the other reach workers in turn, where they
// would be woken together else, and the same one win again and again.
func TestTurnsAreEven(t *testing.T) {
	const workers, each = 4, 100
	f, b := bound(t, "tcp", "127.0.0.1")
	file := os.NewFile(uintptr(f.Release()), "listener")
	defer file.Close()
	for range workers {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), helper+"=turns", "GOMAXPROCS=1")
		cmd.ExtraFiles, cmd.Stderr = []*os.File{file}, os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
		if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "accepting\n" {
			t.Fatalf("%q %v", line, err)
		}
	}
	counts := map[string]int{}
	for range workers * each {
		c, err := net.Dial("tcp", b.Address)
		if err != nil {
			t.Fatal(err)
		}
		pid, err := bufio.NewReader(c).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		counts[pid]++
		_ = c.Close()
	}
	for pid, n := range counts {
		if n < each/2 || n > each*3/2 {
			t.Errorf("worker %s had %d connections of %d: %v", strings.TrimSpace(pid), n, workers*each, counts)
		}
	}
	if len(counts) != workers {
		t.Errorf("%d of %d workers had connections", len(counts), workers)
	}
}

// helperTurns accepts on descriptor 3 and tells each client the process.
func helperTurns() error {
	w, err := Join(context.Background())
	if err != nil {
		return err
	}
	inner, err := fileListener(fdpass.NewFile(3))
	if err != nil {
		return err
	}
	l, err := newListener(w, inner, func() {})
	if err != nil {
		return err
	}
	if l.turn = newTurnstile(l); l.turn == nil {
		return errors.New("no turnstile")
	}
	fmt.Println("accepting")
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			fmt.Fprintln(c, os.Getpid())
		}()
	}
}
