package dispatch

import (
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
)

// node is the worker's end of a peer's channel, driven by the test.
type node struct {
	r     *rig
	id    uint64
	fd    int    // -1: closed
	in    []byte // read, from the beginning of a line on
	files []int  // came, and the line is not read yet
	own   []int  // connections that it was handed

	mu    sync.Mutex
	heard []string
	ends  []error
	rest  bool          // Hear wants no more
	told  chan struct{} // capacity 1: something was heard
}

// peer makes a worker that speaks over a Peer, and has no part in a handle yet.
func (r *rig) peer(id uint64) *node {
	r.t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		r.t.Fatal(err)
	}
	_ = unix.SetNonblock(pair[0], true)
	_ = unix.SetsockoptTimeval(pair[1], unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10})
	n := &node{r: r, id: id, fd: pair[1], told: make(chan struct{}, 1)}
	if err := r.d.AddPeer(Peer{Worker: id, Channel: fdpass.NewFile(pair[0]), Hear: n.hear}); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(n.close)
	return n
}

// peerOn makes one that is offered what arrives on handle 1.
func (r *rig) peerOn(id uint64) *node {
	r.t.Helper()
	n := r.peer(id)
	n.joins(1, "h1")
	return n
}

func (n *node) joins(handle uint64, key string) {
	n.r.t.Helper()
	if err := n.r.d.JoinPeer(handle, PeerMember{Worker: n.id, Slot: int(n.id), Key: key, Admitted: true}); err != nil {
		n.r.t.Fatal(err)
	}
}

// hear is called on the dispatcher's thread.
func (n *node) hear(line []byte, end error) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if end != nil {
		n.ends = append(n.ends, end)
	} else {
		n.heard = append(n.heard, string(line))
	}
	select {
	case n.told <- struct{}{}:
	default:
	}
	return !n.rest
}

// pause lets Hear say whether it wants more.
func (n *node) pause(rest bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.rest = rest
}

func (n *node) lines() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.heard)
}

// ended waits for the end of the channel, and returns its cause.
func (n *node) ended() error {
	n.r.t.Helper()
	deadline := time.NewTimer(10 * time.Second)
	defer deadline.Stop()
	for {
		n.mu.Lock()
		ends := slices.Clone(n.ends)
		n.mu.Unlock()
		if len(ends) > 1 {
			n.r.t.Fatalf("worker %d ended more than once: %v", n.id, ends)
		}
		if len(ends) == 1 {
			return ends[0]
		}
		select {
		case <-n.told:
		case <-deadline.C:
			n.r.t.Fatalf("worker %d: no end of the channel", n.id)
		}
	}
}

func (n *node) close() {
	if n.fd >= 0 {
		_ = unix.Close(n.fd)
	}
	for _, fd := range slices.Concat(n.files, n.own) {
		_ = unix.Close(fd)
	}
	n.fd, n.files, n.own = -1, nil, nil
}

// run serves every connection until its channel ends.
func (n *node) run(wg *sync.WaitGroup) {
	wg.Go(func() {
		for {
			line, fd, ok := n.next()
			if !ok {
				return
			}
			if o, is := isNewConn(line); is && fd >= 0 {
				_ = n.send([]string{lineAck, offer{seq: o.seq}.answer(true)}, nil)
				_, _ = unix.Write(fd, []byte{byte(n.id)})
			}
			if fd >= 0 {
				_ = unix.Close(fd)
			}
		}
	})
}

// dies is what the master does when a worker is gone, and so ends run.
func (n *node) dies() { n.r.d.RemovePeer(n.id) }

// quiet wants nothing to be said to the worker, now that all that was done is seen.
func (n *node) quiet() {
	n.r.t.Helper()
	n.r.settle()
	if len(n.in) > 0 || readable(n.fd) {
		line, fd, _ := n.next()
		n.r.t.Fatalf("worker %d reads %q with descriptor %d, want nothing", n.id, line, fd)
	}
}

// until waits for a condition that the dispatcher, or somebody else, brings about.
func (r *rig) until(what string, is func() bool) {
	r.t.Helper()
	for begun := time.Now(); !is(); runtime.Gosched() {
		if time.Since(begun) > 10*time.Second {
			r.t.Fatalf("never: %s", what)
		}
		r.settle()
	}
}

// pipe is a pair of connected sockets, closed with the test.
func pipe(t testing.TB) (a, b int) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(pair[0]); _ = unix.Close(pair[1]) })
	return pair[0], pair[1]
}

// strikes is how often a worker said what made no sense.
func (n *node) strikes() (strikes int) {
	n.r.d.do(func() {
		if p := n.r.d.peers[n.id]; p != nil {
			strikes = p.strikes
		}
	})
	return strikes
}

// isClean wants that a worker has said nothing that made no sense, and has nothing to
// answer for.
func (n *node) isClean() {
	n.r.t.Helper()
	n.r.d.do(func() {
		p := n.r.d.peers[n.id]
		if p == nil || p.ended || p.strikes > 0 || p.stale > 0 || len(p.sent) > 0 {
			n.r.t.Errorf("worker %d: %+v", n.id, p)
		}
	})
}
