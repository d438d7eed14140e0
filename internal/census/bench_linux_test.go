package census

import (
	"fmt"
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// many is how many connections the worker of a benchmark has.
const many = 10000

// crowd starts a worker that holds many connections. It needs as many descriptors,
// and so do we.
func crowd(b *testing.B, network string) (*worker, *open) {
	b.Helper()
	var limit unix.Rlimit
	must(b, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	if limit.Max < many+1000 {
		b.Skipf("needs RLIMIT_NOFILE of %d, has %d", many+1000, limit.Max)
	}
	limit.Cur = limit.Max
	must(b, unix.Setrlimit(unix.RLIMIT_NOFILE, &limit))
	l := listen(b, plan{network: network})
	w := startWorker(b, l.fd)
	for range many / 100 {
		for _, c := range l.dial(100) {
			if c, ok := c.(*net.TCPConn); ok {
				must(b, c.SetLinger(0)) // leaves nothing in TIME_WAIT
			}
		}
		w.do("accept 100")
	}
	w.want([]int{many}, l)
	return w, l
}

// BenchmarkConnections is all of it, BenchmarkList the part of sock_diag, and
// BenchmarkDescriptors the part of /proc.
func BenchmarkConnections(b *testing.B) {
	for _, network := range []string{"tcp4", "unix"} {
		b.Run(network, func(b *testing.B) {
			w, l := crowd(b, network)
			trees, sockets := map[int][]int{w.pid: {w.pid}}, []Socket{l.Socket}
			b.ReportAllocs()
			before := cpu(b)
			for b.Loop() {
				if _, err := Connections(sockets, trees); err != nil {
					b.Fatal(err)
				}
			}
			perConnection(b, before)
		})
	}
}

func BenchmarkList(b *testing.B) {
	for _, network := range []string{"tcp4", "unix"} {
		b.Run(network, func(b *testing.B) {
			_, l := crowd(b, network)
			before := cpu(b)
			for b.Loop() {
				if err := newLedger([]Socket{l.Socket}).list(); err != nil {
					b.Fatal(err)
				}
			}
			perConnection(b, before)
		})
	}
}

// BenchmarkListNothing is what the kernel's walk through all connections of the
// machine costs, those in TIME_WAIT among them.
func BenchmarkListNothing(b *testing.B) {
	for _, network := range []string{"tcp4", "unix"} {
		b.Run(network, func(b *testing.B) {
			l := listen(b, plan{network: network})
			for b.Loop() {
				if err := newLedger([]Socket{l.Socket}).list(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkDescriptors(b *testing.B) {
	w, _ := crowd(b, "tcp4")
	r := new(reader)
	b.ReportAllocs()
	before := cpu(b)
	for b.Loop() {
		if _, err := r.descriptors(w.pid, func(int, []byte) {}); err != nil {
			b.Fatal(err)
		}
	}
	perConnection(b, before)
}

// BenchmarkAccepting: an epoll set of many entries, and threads when there is none.
func BenchmarkAccepting(b *testing.B) {
	for name, entries := range map[string]int{"epoll": 1, "epoll of 10000": many} {
		b.Run(name, func(b *testing.B) {
			l := listen(b, plan{network: "tcp4"})
			var limit unix.Rlimit
			must(b, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
			if int(limit.Max) < entries+1000 {
				b.Skip("needs a higher RLIMIT_NOFILE")
			}
			w := startPython(b, fmt.Sprintf(`
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (%d,) * 2)
p = select.epoll()
for i in range(%d):
    p.register(os.dup(3), select.EPOLLIN)
p.register(s, select.EPOLLIN)
print(1, flush=True)
os.read(3, 1)
`, limit.Max, entries), l.fd)
			w.line()
			tree := []int{w.pid}
			for b.Loop() {
				if how, err := Accepting(l.Socket, tree); how != "epoll" || err != nil {
					b.Fatal(how, err)
				}
			}
		})
	}
}

func BenchmarkTrees(b *testing.B) {
	w := startWorker(b)
	all, err := processes()
	must(b, err)
	for b.Loop() {
		if _, err := Trees([]int{w.pid}, Orphans{}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(all)), "ns/process")
}

// perConnection reports what one connection costs, on the clock and of our CPU
// time: the clock says little on a busy machine.
func perConnection(b *testing.B, cpuBefore int64) {
	b.Helper()
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/many, "ns/connection")
	b.ReportMetric(float64(cpu(b)-cpuBefore)/float64(b.N)/many, "cpu-ns/connection")
	b.ReportMetric(0, "ns/op")
}

// cpu is our CPU time in nanoseconds.
func cpu(b *testing.B) int64 {
	b.Helper()
	var use unix.Rusage
	must(b, unix.Getrusage(unix.RUSAGE_SELF, &use))
	return use.Utime.Nano() + use.Stime.Nano()
}
