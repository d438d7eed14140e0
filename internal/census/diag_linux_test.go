package census

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// TestManyPorts: one question for all ports, as ranges and when they are too many.
func TestManyPorts(t *testing.T) {
	noLeaks(t)
	foreign := listen(t, plan{network: "tcp4"})
	foreign.dial(1)
	var all []*open
	var fds []int
	for range manyRanges + 20 {
		l := listen(t, plan{network: "tcp4"})
		all, fds = append(all, l), append(fds, l.fd)
	}
	for _, n := range []int{1, 2, 7, 60, len(all)} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			for _, i := range []int{0, n / 2, n - 1} {
				w := startWorker(t, fds[i])
				all[i].dial(1)
				w.do("accept 1")
				want := make([]int, n)
				want[i] = 1
				w.want(want, all[:n]...)
			}
		})
	}
}

// TestFilter: the kernel sends nothing but what is asked for.
func TestFilter(t *testing.T) {
	noLeaks(t)
	asked := make(map[uint16]bool)
	for i := range 12 {
		l := listen(t, plan{network: "tcp4"})
		l.dial(1)
		asked[l.local.Port()] = i%3 == 0
	}
	var ports, got []uint16
	for port, yes := range asked {
		if yes {
			ports = append(ports, port)
		}
	}
	d, err := openDiag()
	must(t, err)
	defer d.close()
	must(t, d.inetConns(unix.AF_INET, ports, func(c inetConn) { got = append(got, c.local.Port()) }))
	slices.Sort(ports)
	slices.Sort(got)
	if !slices.Equal(ports, got) {
		t.Fatalf("asked for %v, got %v", ports, got)
	}
}

func TestRanges(t *testing.T) {
	for want, ports := range map[string][]uint16{"[]": nil, "[{80 80}]": {80, 80}, "[{80 82} {90 90}]": {90, 82, 80, 81, 82}, "[{0 0} {65534 65535}]": {65535, 0, 65534}} {
		if got := fmt.Sprint(rangesOf(ports)); got != want {
			t.Errorf("%v: %v, want %v", ports, got, want)
		}
	}
}

// elsewhere runs do in a network namespace of its own.
func elsewhere(t *testing.T, do func()) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		defer close(done)
		runtime.LockOSThread() // and the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		do()
	}()
	if err := <-done; errors.Is(err, unix.EPERM) {
		t.Skip("needs CAP_SYS_ADMIN, to make a network namespace")
	} else {
		must(t, err)
	}
}

// TestElsewhere: of a socket of another network namespace nothing is known, which is
// an error and not a zero.
func TestElsewhere(t *testing.T) {
	for _, network := range []string{"tcp4", "unix"} {
		t.Run(network, func(t *testing.T) {
			noLeaks(t)
			var l *open
			elsewhere(t, func() { l = listen(t, plan{network: network}) })
			if _, err := Connections([]Socket{l.Socket}, nil); !errors.Is(err, ErrElsewhere) {
				t.Error(err)
			}
			if n, err := l.Queue(); n != 0 || (network == "unix") != errors.Is(err, ErrElsewhere) {
				t.Error(n, err)
			}
		})
	}
}

// TestClientElsewhere is a case that we know we miss: an accepted Unix connection is
// of the network namespace of its client. Should a kernel change that, so does the
// description of the package.
func TestClientElsewhere(t *testing.T) {
	noLeaks(t)
	l := listen(t, plan{network: "unix"})
	w := startWorker(t, l.fd)
	elsewhere(t, func() { l.dial(1) })
	l.wantQueue(1)
	l.dial(1)
	w.do("accept 2")
	w.want([]int{1}, l)
}
