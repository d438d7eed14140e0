package load

import (
	"math"
	"time"

	"golang.org/x/sys/unix"
)

// flow is a group while it runs. Times are nanoseconds since the start.
type flow struct {
	Group
	index   int
	request []byte // HTTP: the same for all

	domain  int
	dest    unix.Sockaddr
	sources []unix.Sockaddr // bound to in turn; empty: the kernel chooses
	turn    int

	ticks   int   // arrivals that were begun, open loop
	last    int64 // time of the last begin
	clients []*client
	fig     Figures
	workers map[int]Worker
}

// client is one of Group.Clients. While it waits it is in the loop's heap,
// else a connection points to it.
type client struct {
	flow  *flow
	first int64 // time of its first request
	due   int64 // time of the next one
	conn  *conn // kept and idle; nil: the next request connects
}

func newFlow(index int, g Group, to target) *flow {
	f := &flow{Group: g, index: index, workers: map[int]Worker{}}
	f.fig = Figures{Name: g.Name, Stated: g.stated(), Failed: map[Kind]int{}, PIDs: map[int]int{}, hist: new(hist)}
	f.request = getRequest(&g)
	switch ip := to.addr.Addr(); {
	case to.path != "":
		f.domain, f.dest = unix.AF_UNIX, &unix.SockaddrUnix{Name: to.path}
	case ip.Is4():
		f.domain, f.dest = unix.AF_INET, &unix.SockaddrInet4{Port: int(to.addr.Port()), Addr: ip.As4()}
		for i := 1; i <= g.Sources && g.Sources > 1; i++ {
			f.sources = append(f.sources, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 1, byte(i)}})
		}
	default:
		f.domain, f.dest = unix.AF_INET6, &unix.SockaddrInet6{Port: int(to.addr.Port()), Addr: ip.As16()}
	}
	// Clients begin evenly over their period, or 100 us apart: a burst of
	// connects could overflow the queue all by itself.
	step := 100 * time.Microsecond
	if g.Every > 0 {
		step = max(g.Every/time.Duration(max(g.Clients, 1)), 1)
	}
	for i := range g.Clients {
		at := int64(step) * int64(i)
		f.clients = append(f.clients, &client{flow: f, first: at, due: at})
	}
	return f
}

// tick is the scheduled time of the n-th arrival of an open loop.
func (f *flow) tick(n int) int64 { return int64(float64(n) * 1e9 / f.Rate) }

func (f *flow) exhausted() bool { return f.fig.Begun >= f.Count }

// dueBy counts what the schedule holds before end.
func (f *flow) dueBy(end int64) int {
	n := 0
	switch {
	case f.Rate > 0:
		n = int(math.Ceil(float64(end) * f.Rate / 1e9))
	case f.Every > 0:
		every := int64(f.Every)
		for _, c := range f.clients {
			if end > c.first {
				n += int((end - c.first + every - 1) / every)
			}
		}
	}
	return min(n, f.Count)
}

// right records a full and right answer by pid at now.
func (f *flow) right(pid int, now, latency int64) {
	f.fig.hist.add(latency)
	if pid == 0 {
		return
	}
	w, seen := f.workers[pid]
	if !seen {
		w = Worker{PID: pid, First: time.Duration(now)}
	}
	w.Answers++
	w.Last = time.Duration(now)
	f.workers[pid] = w
}

// figures closes the account of a run whose begins ended at end.
func (f *flow) figures(end int64) Figures {
	fig := f.fig
	fig.Due = f.dueBy(end)
	if t := max(end, f.last); t > 0 {
		fig.Rate = float64(fig.Begun) / (float64(t) / 1e9)
	}
	fig.Latency = fig.hist.latency()
	fig.Workers = sorted(f.workers)
	for _, w := range fig.Workers {
		fig.PIDs[w.PID] = w.Answers
	}
	return fig
}

// clientHeap orders clients by due; container/heap.
type clientHeap []*client

func (h clientHeap) Len() int           { return len(h) }
func (h clientHeap) Less(i, j int) bool { return h[i].due < h[j].due }
func (h clientHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *clientHeap) Push(x any)        { *h = append(*h, x.(*client)) }
func (h *clientHeap) Pop() any {
	old := *h
	c := old[len(old)-1]
	*h = old[:len(old)-1]
	return c
}
