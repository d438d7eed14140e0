package main

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/f72e338e/supervisord/bench/load"
	"github.com/f72e338e/supervisord/internal/testkit"
)

// The load of the scenarios. With the race detector in the client, the master and
// the workers it is a smaller one: what is lost is judged the same.
func usualLoad() (rate float64, kept int) {
	if testkit.Race {
		return 150, 20
	}
	return 500, 50
}

// longest is the time after which a load ends by itself.
const longest = 10 * time.Minute

// traffic is a load that runs while something is done.
type traffic struct {
	t      testkit.T
	cancel context.CancelFunc
	done   chan struct{}
	result load.Result // valid once done is closed
	err    error

	mu    sync.Mutex
	state load.Progress
	pids  map[int]bool // who answered
}

// amongOthers says that others overflow listen queues on purpose at the same time, and
// the kernel's counters are everybody's. A connection that is dropped here is late by a
// second then, which is a failure anyway.
var amongOthers bool

// startTraffic begins the usual load on a target, and waits until it flows.
func startTraffic(t testkit.T, target string) *traffic {
	t.Helper()
	rate, kept := usualLoad()
	return startLoad(t,
		load.Group{Name: "new", Target: target, Rate: rate},
		load.Group{Name: "kept", Target: target, Clients: kept, KeepAlive: true, Every: 100 * time.Millisecond})
}

// startLoad begins the load of these groups, and waits until it flows.
func startLoad(t testkit.T, groups ...load.Group) *traffic {
	t.Helper()
	tr := &traffic{t: t, done: make(chan struct{}), pids: map[int]bool{}}
	for i := range groups {
		groups[i].Check = tr.check
	}
	plan := load.Plan{Duration: longest, Examples: 1_000_000, Progress: tr.progress, IgnoreDrops: amongOthers, Groups: groups}
	ctx, cancel := context.WithCancel(t.Context())
	tr.cancel = cancel
	go func() { // ended by stop, or by the end of the scenario
		defer close(tr.done)
		tr.result, tr.err = load.Run(ctx, plan)
	}()
	t.Cleanup(func() { cancel(); <-tr.done })
	testkit.Until(t, testkit.Patience, "the load to flow", func() bool { return tr.now().Answered > 50 })
	return tr
}

// progress and check are called on the load's goroutine.
func (tr *traffic) progress(p load.Progress) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.state = p
}

var pidInBody = regexp.MustCompile(`pid=(\d+) `)

func (tr *traffic) check(body []byte) error {
	m := pidInBody.FindSubmatch(body)
	if m == nil {
		return fmt.Errorf("no pid in the answer %.60q", body)
	}
	pid, _ := strconv.Atoi(string(m[1]))
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.pids[pid] = true
	return nil
}

func (tr *traffic) now() load.Progress {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.state
}

// until waits until the load has run so long.
func (tr *traffic) until(at time.Duration) {
	tr.t.Helper()
	testkit.Until(tr.t, at+testkit.Patience, fmt.Sprintf("%v of load", at), func() bool { return tr.now().Elapsed >= at })
}

// goOn waits until the load has run for so much longer.
func (tr *traffic) goOn(d time.Duration) {
	tr.t.Helper()
	tr.until(tr.now().Elapsed + d)
}

// answeredBy waits until each of the workers has answered a request.
func (tr *traffic) answeredBy(pids map[int]int) {
	tr.t.Helper()
	testkit.Until(tr.t, testkit.Patience, fmt.Sprintf("an answer of each of %v", pids), func() bool {
		tr.mu.Lock()
		defer tr.mu.Unlock()
		for _, pid := range pids {
			if !tr.pids[pid] {
				return false
			}
		}
		return true
	})
}

// stop ends the load and returns its result. Its table is shown.
func (tr *traffic) stop() load.Result {
	tr.t.Helper()
	tr.cancel()
	<-tr.done
	if tr.err != nil {
		tr.t.Fatalf("%v", tr.err)
	}
	tr.t.Logf("%s", table(tr.result))
	return tr.result
}

// clean ends the load, of which nothing may have been lost.
func (tr *traffic) clean() load.Result {
	tr.t.Helper()
	res := tr.stop()
	if err := res.Err(); err != nil {
		text := err.Error()
		tr.t.Errorf("%s", text[:min(len(text), 4000)])
	}
	return res
}

// table is the client's table, cut to what one can read.
func table(res load.Result) string {
	if len(res.Examples) > 8 {
		res.Examples = res.Examples[:8]
	}
	workers := len(res.Workers)
	if workers > 6 {
		res.Workers = append(res.Workers[:3:3], res.Workers[workers-3:]...)
	}
	var b strings.Builder
	_ = res.WriteTable(&b)
	// Whether what was lost was to be lost is the scenario's to say.
	text := strings.Replace(b.String(), "NOT OK after", "by the client's own measure not OK after", 1)
	return strings.Replace(text, fmt.Sprintf("workers: %d\n", len(res.Workers)), fmt.Sprintf("workers: %d answered\n", workers), 1)
}

func comparison(c load.Comparison) string {
	var b strings.Builder
	_ = c.WriteTable(&b)
	return b.String()
}
