package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"

	"github.com/f72e338e/supervisord/bench/load"
)

// workload is what is done to each target in turn, and what of it is shown.
type workload struct {
	name    string
	about   string
	kept    int // connections that are opened once and kept; 0: for the duration of the run
	threads int // of the client; 0: 1
	groups  func(address string) []load.Group
	columns []metric
	ratio   metric // compared with each of the bases; "": no columns for it
	minus   metric // of which that of policy shared is subtracted; "": no column for it
}

// bases are the targets that ratios are printed to.
var bases = []string{plainGo, plainGo1, nodeRR, sameInC}

// scenario is a case: targets with so many workers, under one workload or several.
type scenario struct {
	name    string
	workers int
	loads   []workload
}

const (
	closedClients = 32
	keptClients   = 800
	keptPeriod    = 800 * time.Millisecond // they begin evenly over it: 1000 a second
	lightRate     = 500
	heavyPath     = "/cpu?ms=10"
)

var scenarios = []scenario{
	{"rate", 2, []workload{{
		name: "rate", about: fmt.Sprintf("a new connection for each request, %d clients in 2 threads, 2 workers", closedClients),
		groups: func(to string) []load.Group {
			return []load.Group{{Name: "new", Target: to, Clients: closedClients}}
		},
		threads: 2, // one is not enough to keep the servers busy
		columns: []metric{rate, cpu, master, p50, p99}, ratio: rate,
	}}},
	{"spread", 8, []workload{{
		name: "spread", about: fmt.Sprintf("%d connections opened at 1000/s and kept, 8 workers: connections of a worker", keptClients),
		kept: keptClients,
		groups: func(to string) []load.Group {
			return []load.Group{{Name: "kept", Target: to, Clients: keptClients, KeepAlive: true, Every: keptPeriod, Count: keptClients}}
		},
		columns: []metric{fewest, most, off, crowded},
	}}},
	{"tail", 4, []workload{{
		name: "tail", about: fmt.Sprintf("%d light requests a second among heavy ones of 10 ms of CPU, 4 workers: latency of the light ones", lightRate),
		// Two periods that do not divide each other, so that the heavy ones meet in
		// every way. 91 a second: 45 % of two processors.
		groups: func(to string) []load.Group {
			return []load.Group{
				{Name: "light", Target: to, Rate: lightRate},
				{Name: "heavy", Target: to, Path: heavyPath, Clients: 2, Every: 41 * time.Millisecond},
				{Name: "heavy too", Target: to, Path: heavyPath, Clients: 2, Every: 47 * time.Millisecond},
			}
		},
		columns: []metric{p50, p90, p99, p999, heavy}, ratio: p99,
	}}},
	{"fixed", 2, []workload{fixed(1000), fixed(4000)}},
}

// fixed is new connections on a schedule.
func fixed(perSecond float64) workload {
	return workload{
		name: fmt.Sprintf("fixed %.0f/s", perSecond), about: fmt.Sprintf("%.0f new connections a second, 2 workers", perSecond),
		groups: func(to string) []load.Group {
			return []load.Group{{Name: "new", Target: to, Rate: perSecond}}
		},
		columns: []metric{p50, p99, cpu}, minus: p50,
	}
}

// options say how much is measured, and of what.
type options struct {
	rounds   int
	duration time.Duration
	late     time.Duration  // a slower answer is lost
	only     *regexp.Regexp // names of targets
	cases    []string
	say      func(format string, a ...any) // a line about the progress
}

// warmUp is how long each target is loaded before it is measured.
const warmUp = 300 * time.Millisecond

// measure runs a case: it starts all targets, loads one at a time, and stops them.
func measure(ctx context.Context, k *kit, o options, sc scenario, r *report) error {
	var servers []*server
	defer func() {
		for _, s := range servers {
			s.stop()
		}
	}()
	for _, t := range targets() {
		if !t.takesPart(sc.name) || !o.only.MatchString(t.name) {
			continue
		}
		s, err := k.run(ctx, t, sc.workers)
		if ctx.Err() != nil {
			if err == nil {
				s.stop()
			}
			return ctx.Err()
		}
		if reason, is := isUnavailable(err); is {
			if r.skip(t.name, reason) {
				o.say("%s: not available: %s", t.name, reason)
			}
			continue
		}
		if err != nil {
			r.fail(sc.name, t.name, err)
			o.say("%s: %s: failed: %v", sc.name, t.name, err)
			continue
		}
		servers = append(servers, s)
	}
	for _, w := range sc.loads {
		b, err := w.on(ctx, o, servers, r)
		if err != nil {
			return err
		}
		r.add(sc, w, servers, b)
	}
	return nil
}

// on puts the workload on the servers, in rounds.
func (w workload) on(ctx context.Context, o options, servers []*server, r *report) (*board, error) {
	o.say("%s: %s; %d targets, %d rounds", w.name, w.about, len(servers), o.rounds)
	var sides []side
	for _, s := range servers {
		sides = append(sides, side{s.name, func(ctx context.Context) (sample, error) { return w.once(ctx, s, o, r) }})
	}
	// Warm up: pages, ports and a just-in-time compiler.
	short := o
	short.duration = min(o.duration, warmUp)
	for i, s := range servers {
		_, err := w.once(ctx, s, short, nil)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			sides[i].run = func(context.Context) (sample, error) { return nil, fmt.Errorf("warming up: %w", err) }
		}
	}
	return alternate(ctx, o.rounds, sides, func(round int, name string, s sample, err error) {
		if err != nil {
			r.fail(w.name, name, err)
			o.say("%s: %s: failed in round %d: %v", w.name, name, round+1, err)
		}
	})
}

// once loads a server once. A remark about the load goes to the report, if any.
func (w workload) once(ctx context.Context, s *server, o options, r *report) (sample, error) {
	plan := load.Plan{
		Groups: w.groups(s.address), Duration: o.duration, Late: o.late, Threads: w.threads, Timeout: max(load.DefaultTimeout, o.late+time.Second), CPUOf: s.all(),
		// The counters are the machine's, and others may overflow queues on purpose. A
		// connection that is dropped here shows as an answer that is a second late,
		// which is a failure anyway.
		IgnoreDrops: true,
	}
	if w.kept > 0 {
		plan.Duration = 10 * keptPeriod // the count ends it
	}
	res, err := load.Run(ctx, plan)
	if err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	remark, err := lost(res)
	if err != nil {
		return nil, err
	}
	if remark != "" && r != nil {
		r.remark(w.name, s.name, remark)
	}
	if w.kept == 0 {
		return latencies(res, s), nil
	}
	for pid := range res.PIDs {
		if !slices.Contains(s.workers, pid) {
			return nil, fmt.Errorf("process %d answered, which is none of the workers %v", pid, s.workers)
		}
	}
	if res.Answered != w.kept {
		return nil, errors.New("not every connection was opened")
	}
	return spread(res, len(s.workers)), nil
}
