package census

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/internal/testkit"
)

// TestAccepted: what waits in the queue has no holder, and what is accepted has.
func TestAccepted(t *testing.T) {
	for name, p := range map[string]plan{
		"tcp4": {network: "tcp4"}, "tcp6": {network: "tcp6"}, "unix": {network: "unix"}, "abstract": {network: "unix", address: "@"},
		"seqpacket": {network: "unixpacket"}, "mptcp": {network: "tcp4", protocol: unix.IPPROTO_MPTCP},
	} {
		t.Run(name, func(t *testing.T) {
			noLeaks(t)
			if p.protocol != 0 {
				needMPTCP(t)
			}
			l := listen(t, p)
			w := startWorker(t, l.fd)
			w.want([]int{0}, l)
			l.dial(5)
			l.wantQueue(5)
			w.want([]int{0}, l)
			w.do("accept 3")
			l.wantQueue(2)
			w.want([]int{3}, l)
			w.do("close 1")
			w.want([]int{2}, l)
			w.do("accept 2")
			l.wantQueue(0)
			w.want([]int{4}, l)
		})
	}
}

func needMPTCP(t *testing.T) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP)
	if err != nil {
		t.Skipf("needs MPTCP: %v", err)
	}
	_ = unix.Close(fd)
}

// TestDualStack: clients of IPv4 and IPv6 on one socket.
func TestDualStack(t *testing.T) {
	noLeaks(t)
	l := listen(t, plan{network: "dual", address: "[::]:0"})
	w := startWorker(t, l.fd)
	l.dialTo("127.0.0.1:"+l.port(), 2)
	l.dialTo("[::1]:"+l.port(), 3)
	w.do("accept 5")
	w.want([]int{5}, l)
}

// TestSamePort: each connection is of the socket whose address is closest.
func TestSamePort(t *testing.T) {
	noLeaks(t)
	// With it the wildcard does not clash with the others, and is in no group of theirs.
	exact := listen(t, plan{network: "tcp4", reusePort: true})
	others := []*open{exact}
	for _, p := range []plan{{network: "tcp4", address: "127.0.0.2:"}, {network: "tcp4", address: "0.0.0.0:"}} {
		p.address, p.reusePort = p.address+exact.port(), true
		others = append(others, listen(t, p))
	}
	var workers []*worker
	for i, l := range others {
		workers = append(workers, startWorker(t, l.fd))
		l.dialTo(fmt.Sprintf("127.0.0.%d:%s", i+1, exact.port()), i+1)
		workers[i].do(fmt.Sprint("accept ", i+1))
	}
	for i, w := range workers {
		want := make([]int, 3)
		want[i] = i + 1
		w.want(want, others...)
	}
}

// TestDevice: of two sockets with one address, the one that is bound to the interface
// has its connections. Which one the kernel leads them to depends on the order.
func TestDevice(t *testing.T) {
	lo, err := net.InterfaceByName("lo")
	must(t, err)
	for _, devices := range [][]int{{0, lo.Index}, {lo.Index, 0}} {
		t.Run(fmt.Sprint(devices), func(t *testing.T) {
			noLeaks(t)
			a := listen(t, plan{network: "tcp4", reusePort: true, device: devices[0]})
			b := listen(t, plan{network: "tcp4", reusePort: true, device: devices[1], address: a.address})
			b.dial(2)
			ofA := 0
			until(t, "two in the queues", func() bool {
				ofB, err := b.Queue()
				must(t, err)
				ofA, err = a.Queue()
				must(t, err)
				return ofA+ofB == 2
			})
			first, second := startWorker(t, a.fd), startWorker(t, b.fd)
			first.do(fmt.Sprint("accept ", ofA))
			second.do(fmt.Sprint("accept ", 2-ofA))
			first.want([]int{ofA, 0}, a, b)
			second.want([]int{0, 2 - ofA}, a, b)
		})
	}
}

// TestReusePort: of sockets with one address, the one that the tree has.
func TestReusePort(t *testing.T) {
	noLeaks(t)
	a := listen(t, plan{network: "tcp4", reusePort: true})
	first := startWorker(t, a.fd)
	a.dial(2)
	first.do("accept 2")
	b := listen(t, plan{network: "tcp4", reusePort: true, address: a.address})
	first.want([]int{2, 0}, a, b)
	first.want([]int{0, 2}, b, a)
	second := startWorker(t, b.fd)
	must(t, unix.Shutdown(a.fd, unix.SHUT_RD)) // out of the group
	b.dial(3)
	second.do("accept 3")
	second.want([]int{0, 3}, a, b)
	second.do("release")
	second.want([]int{3, 0}, a, b)
	a.wantQueue(0)
}

// TestSuccessor: a path that is bound anew does not inherit the connections of the
// socket that had it before.
func TestSuccessor(t *testing.T) {
	noLeaks(t)
	old := listen(t, plan{network: "unix"})
	w := startWorker(t, old.fd)
	old.dial(2)
	w.do("accept 2")
	must(t, os.Remove(old.address))
	w.want([]int{2}, old)
	now := listen(t, plan{network: "unix", address: old.address})
	w.want([]int{2, 0}, old, now)
}

// TestHalfClosed: what is closed by one side is still open for the worker.
func TestHalfClosed(t *testing.T) {
	for _, network := range []string{"tcp4", "unix"} {
		t.Run(network, func(t *testing.T) {
			noLeaks(t)
			l := listen(t, plan{network: network})
			w := startWorker(t, l.fd)
			conns := l.dial(3)
			w.do("accept 3")
			w.do("shutdown 1") // FIN_WAIT2
			must(t, conns[0].(interface{ CloseWrite() error }).CloseWrite())
			must(t, conns[1].Close()) // CLOSE_WAIT, both
			w.want([]int{3}, l)
			if network == "tcp4" {
				until(t, "the states", func() bool { return inState(t, l, tcpFinWait2) == 1 && inState(t, l, tcpCloseWait) == 2 })
			}
			w.want([]int{3}, l)
		})
	}
}

// TestTimeWait: what the worker closed first stays in the kernel's table.
func TestTimeWait(t *testing.T) {
	noLeaks(t)
	l := listen(t, plan{network: "tcp4"})
	w := startWorker(t, l.fd)
	conns := l.dial(4)
	w.do("accept 4")
	w.do("close 3")
	for _, c := range conns[1:] {
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Fatal("not closed")
		}
		must(t, c.Close())
	}
	w.want([]int{1}, l)
	const timeWait = 6
	if !testkit.Eventually(t, testkit.Patience, func() bool { return inState(t, l, timeWait) == 3 || noRoom(t) }) {
		t.Fatalf("%d in TIME_WAIT, want 3", inState(t, l, timeWait))
	}
	w.want([]int{1}, l)
}

// inState counts the sockets with the port of l in a state of tcp_states.h.
func inState(t *testing.T, l *open, state int) int {
	t.Helper()
	d, err := openDiag()
	must(t, err)
	defer d.close()
	request := make([]byte, inetRequestSize)
	request[0], request[1] = unix.AF_INET, unix.IPPROTO_TCP
	binary.NativeEndian.PutUint32(request[4:], 1<<state)
	binary.BigEndian.PutUint16(request[8:], l.local.Port())
	n := 0
	must(t, d.list(request, func([]byte) { n++ }))
	return n
}

// noRoom says whether the machine has as many sockets in TIME_WAIT as it may have,
// which leaves no trace of further ones. tcp(7), tcp_max_tw_buckets
func noRoom(t *testing.T) bool {
	t.Helper()
	text, err := os.ReadFile("/proc/net/sockstat")
	must(t, err)
	var have, most int
	_, after, _ := strings.Cut(string(text), " tw ")
	_, err = fmt.Sscan(after, &have)
	must(t, err)
	text, err = os.ReadFile("/proc/sys/net/ipv4/tcp_max_tw_buckets")
	must(t, err)
	_, err = fmt.Sscan(string(text), &most)
	must(t, err)
	return have > most-most/100
}

// TestShared: a connection in two processes counts once for a tree, and for each of
// two trees.
func TestShared(t *testing.T) {
	noLeaks(t)
	l := listen(t, plan{network: "tcp4"})
	w := startWorker(t, l.fd)
	l.dial(3)
	w.do("accept 2")
	child := w.do("child")
	w.do("accept 1")
	w.wantIn([]int{w.pid, child}, []int{3}, l)
	w.wantIn([]int{child}, []int{2}, l)
	got := counts(t, map[int][]int{1: {w.pid}, 2: {child}, 3: {child, w.pid}, 4: nil}, l)
	if fmt.Sprint(got) != fmt.Sprint(map[int][]int{1: {3}, 2: {2}, 3: {3}, 4: {0}}) {
		t.Fatal(got)
	}
}

// TestLook: what is no socket of ours is told apart.
func TestLook(t *testing.T) {
	noLeaks(t)
	var pipe [2]int
	must(t, unix.Pipe2(pipe[:], unix.O_CLOEXEC))
	defer func() { _ = unix.Close(pipe[0]); _ = unix.Close(pipe[1]) }()
	d, err := openDiag()
	must(t, err)
	defer d.close()
	for fd, want := range map[int]error{-1: unix.EBADF, pipe[0]: unix.ENOTSOCK, d.fd: unix.EPROTONOSUPPORT} {
		if _, err := Look(fd); !errors.Is(err, want) {
			t.Errorf("%v, want %v", err, want)
		}
	}
	u := listen(t, plan{network: "udp4"})
	u.wantQueue(0)
	w := startWorker(t, u.fd)
	w.want([]int{0}, u)
}
