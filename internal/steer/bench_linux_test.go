package steer

import (
	"fmt"
	"net"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// BenchmarkConnect opens, accepts and closes one connection at a time: by the
// kernel's hash, by the program when the first that it looks at is idle, and when
// all have connections, so that it looks at each. ns/pick is what the kernel says
// that a run of the program took.
func BenchmarkConnect(b *testing.B) {
	for _, n := range []int{2, 8, 64, 256} {
		b.Run(fmt.Sprintf("hash-%d", n), func(b *testing.B) { connect(b, Hash, n, false) })
		b.Run(fmt.Sprintf("idle-%d", n), func(b *testing.B) { connect(b, Steered, n, false) })
		b.Run(fmt.Sprintf("busy-%d", n), func(b *testing.B) { connect(b, Steered, n, true) })
	}
}

func connect(b *testing.B, mode Mode, n int, busy bool) {
	r := newRig(b, "tcp4", mode, n)
	r.serveAll()
	if busy {
		r.spread(2 * n)
	}
	fds := make([]unix.PollFd, n)
	for i, s := range r.socks {
		fds[i] = unix.PollFd{Fd: int32(s.Fd()), Events: unix.POLLIN}
	}
	if stats, err := ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME)); err == nil {
		defer func() { _ = stats.Close() }()
	}
	b.ResetTimer()
	for range b.N {
		c, err := net.Dial(r.network, r.addr)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := unix.Poll(fds, 1000); err != nil {
			b.Fatal(err)
		}
		for i := range fds {
			if fds[i].Revents != 0 {
				w := r.workers[i]
				before := len(w.conns)
				w.accept()
				for _, fd := range w.conns[before:] {
					_ = unix.Close(fd)
					w.data.closed++
				}
				w.conns = w.conns[:before]
			}
		}
		_ = c.(*net.TCPConn).SetLinger(0)
		_ = c.Close()
	}
	b.StopTimer()
	if mode == Steered {
		if s, err := r.g.k.program.Stats(); err == nil && s.RunCount > 0 {
			b.ReportMetric(float64(s.Runtime.Nanoseconds())/float64(s.RunCount), "ns/pick")
		}
	}
}
