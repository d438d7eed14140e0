package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/f72e338e/supervisord/bench/load"
	"github.com/f72e338e/supervisord/internal/api"
	"github.com/f72e338e/supervisord/internal/testkit"
)

// What a misdeed may cost. The others' latency is compared with that beside a process
// which uses the processor as much and has nothing to do with the master: a worker may
// compute as it likes. Of the rounds the second best are compared, the worse one of the
// quiet and the control rounds being the measure: a misdeed that holds others up does so
// in every round, and what else the machine does in some. So there are more rounds, up to
// three times as many, where they look too slow. What is as short as a time slice
// of the kernel is noise.
const (
	mostP50    = 1.25
	mostP99    = 1.5
	noiseP50   = 250 * time.Microsecond
	noiseP99   = 4 * time.Millisecond
	mostMemory = 12 << 20 // bytes by which the master may grow: a message of 1 MiB is some of these until the collector comes
	mostAsked  = time.Second
)

// figures are what a misdeed costs.
type figures struct {
	quiet, deed, control []load.Sample // one of each round; only deed at the short scale
	share                float64       // of a processor that the hostile workers used
	told                 int           // how many workers were told to do it
	grown                int64         // bytes, the master's peak
	asked                time.Duration // slowest status
}

func (f figures) String() string {
	var b strings.Builder
	for _, part := range []struct {
		name string
		list []load.Sample
	}{{"quiet", f.quiet}, {"deed", f.deed}, {"control", f.control}} {
		if len(part.list) > 0 {
			p50, p99 := secondBest(part.list)
			fmt.Fprintf(&b, "%s p50 %v p99 %v, ", part.name, p50.Round(time.Microsecond), p99.Round(10*time.Microsecond))
		}
	}
	fmt.Fprintf(&b, "%d workers did it with %.2f processors, master %+.1f MiB, status within %v", f.told, f.share,
		float64(f.grown)/(1<<20), f.asked.Round(100*time.Microsecond))
	return b.String()
}

// tooSlow compares the latencies. It returns what is wrong, "" for nothing.
func (f figures) tooSlow() string {
	p50, p99 := secondBest(f.deed)
	q50, q99 := secondBest(f.quiet)
	c50, c99 := secondBest(f.control)
	if limit := time.Duration(mostP50*float64(max(q50, c50))) + noiseP50; p50 > limit {
		return fmt.Sprintf("p50 %v, at most %v", p50, limit)
	}
	if limit := time.Duration(mostP99*float64(max(q99, c99))) + noiseP99; p99 > limit {
		return fmt.Sprintf("p99 %v, at most %v", p99, limit)
	}
	return ""
}

// secondBest are the figures of the second best round, each for itself.
func secondBest(list []load.Sample) (p50, p99 time.Duration) {
	second := func(of func(load.Sample) time.Duration) time.Duration {
		var v []time.Duration
		for _, s := range list {
			v = append(v, of(s))
		}
		slices.Sort(v)
		return v[min(1, len(v)-1)]
	}
	return second(func(s load.Sample) time.Duration { return s.P50 }), second(func(s load.Sample) time.Duration { return s.P99 })
}

// events are those that a master keeps, as supervisord events --json shows them.
func events(t testkit.T, d *testkit.Daemon) (list []api.Event) {
	t.Helper()
	for line := range strings.Lines(d.Must("events", "--json").Stdout) {
		var e api.Event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("no event: %q: %v", line, err)
		}
		list = append(list, e)
	}
	return list
}

// lastEvent is the number of the newest event.
func lastEvent(t testkit.T, d *testkit.Daemon) uint64 {
	t.Helper()
	list := events(t, d)
	return list[len(list)-1].ID
}

// isTold reports whether an event after that number names the worker that did the
// misdeed, or the one to which it was done.
func isTold(t testkit.T, d *testkit.Daemon, m misdeed, after uint64) bool {
	t.Helper()
	return slices.ContainsFunc(events(t, d), func(e api.Event) bool {
		return e.ID > after && e.Event == m.event && e.Pool == m.pool && e.Worker != 0 && e.PID != 0 && strings.Contains(e.Cause, m.cause)
	})
}
