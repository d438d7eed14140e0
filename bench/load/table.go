package load

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// WriteTable writes the result for people.
func (r Result) WriteTable(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%-12s %9s %9s %9s %9s %7s %9s %9s %9s %9s %9s %9s\n",
		"group", "stated/s", "rate/s", "begun", "answered", "failed", "p50", "p90", "p99", "p99.9", "max", "lag")
	rows := r.Groups
	if len(rows) > 1 {
		rows = append(rows[:len(rows):len(rows)], r.Figures)
	}
	for i := range rows {
		g := &rows[i]
		stated := "-"
		if g.Stated > 0 {
			stated = fmt.Sprintf("%.1f", g.Stated)
		}
		l := g.Latency
		fmt.Fprintf(&b, "%-12s %9s %9.1f %9d %9d %7d %9v %9v %9v %9v %9v %9v\n", g.Name, stated, g.Rate, g.Begun, g.Answered, g.Failures(),
			short(l.P50), short(l.P90), short(l.P99), short(l.P999), short(l.Max), short(g.MaxLag))
	}
	fmt.Fprintf(&b, "\nconnections: %d, idle-closed %d, closed at the server's word %d, reset after the answer %d\n",
		r.Connections, r.IdleClosed, r.AskedClosed, r.ResetAfter)
	fmt.Fprintf(&b, "listen queues: overflows +%d, drops +%d\n", r.Drops.ListenOverflows, r.Drops.ListenDrops)
	fmt.Fprintf(&b, "cpu: client %v a request", r.perRequest(r.ClientCPU))
	if len(r.CPU) > 0 {
		fmt.Fprintf(&b, ", server %v a request", r.perRequest(r.serverCPU()))
	}
	fmt.Fprintf(&b, "\nworkers: %d\n", len(r.Workers))
	for _, k := range r.Workers {
		fmt.Fprintf(&b, "  pid %-8d %9d answers, from %.3fs to %.3fs\n", k.PID, k.Answers, k.First.Seconds(), k.Last.Seconds())
	}
	if n := r.Failures(); n > 0 {
		fmt.Fprintf(&b, "failures: %d, on reused connections %d, outside a request %d\n", n, r.Reused, r.Unasked)
		for _, k := range Kinds {
			if c := r.Failed[k]; c > 0 {
				fmt.Fprintf(&b, "  %-18s %d\n", k, c)
			}
		}
		for _, e := range r.Examples {
			fmt.Fprintf(&b, "  %v\n", e)
		}
	}
	if r.OK() {
		fmt.Fprintf(&b, "OK: nothing lost in %v\n", short(r.Elapsed))
	} else {
		fmt.Fprintf(&b, "NOT OK after %v\n  %s\n", short(r.Elapsed), strings.Join(r.Problems, "\n  "))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// perRequest divides cpu by the requests begun.
func (r *Result) perRequest(cpu time.Duration) time.Duration {
	if r.Begun == 0 {
		return 0
	}
	return (cpu / time.Duration(r.Begun)).Round(100 * time.Nanosecond)
}

func (r *Result) serverCPU() time.Duration {
	var sum time.Duration
	for _, c := range r.CPU {
		sum += c
	}
	return sum
}

// short rounds to about three digits.
func short(d time.Duration) time.Duration {
	for unit := time.Duration(10); ; unit *= 10 {
		if d < 100*unit {
			return d.Round(unit / 10)
		}
	}
}
