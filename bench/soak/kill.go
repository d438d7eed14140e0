package main

import (
	"fmt"
	"strings"
	"syscall"
	"time"

	"github.com/f72e338e/supervisord/bench/load"
	"github.com/f72e338e/supervisord/internal/api"
	"github.com/f72e338e/supervisord/internal/testkit"
)

// killed is one kill -9.
type killed struct {
	pid  int
	at   time.Time
	held int // sockets of the process right before
}

// oneUptime is the min_uptime of these scenarios. A worker that was ready for
// longer ran well, and is replaced at once; one that was not waits restart_delay,
// doubled each time: with the default of 5 s and a kill every 1.5 s the fourth
// delay would be over the 900 ms that make an answer lost, as it should be.
const oneUptime = "min_uptime = \"1s\""

// pause is from one kill to the next: above min_uptime.
const pause = 1500 * time.Millisecond

func killOneOfTwo(t testkit.T, s scale) {
	address := testkit.Address(t)
	cfg := setup{address: address, pools: []pool{{name: "web", workers: 2, settings: oneUptime}}}
	killWorkers(t, s, startDaemon(t, cfg), address)
}

func killDispatched(t testkit.T, s scale) {
	address := testkit.Address(t)
	cfg := setup{address: address, policy: "round_robin", pools: []pool{{name: "web", workers: 2, settings: oneUptime}}}
	killWorkers(t, s, startDaemon(t, cfg), address)
}

func killOnlyConfigured(t testkit.T, s scale) {
	address := testkit.Address(t)
	cfg := setup{address: address, pools: []pool{{name: "web", workers: 1, settings: oneUptime}}}
	killWorkers(t, s, startDaemon(t, cfg), address)
}

func killOnlyRequested(t testkit.T, s scale) {
	address := testkit.Address(t)
	cfg := setup{pools: []pool{{name: "web", workers: 1, args: []string{"--listen", address}, settings: oneUptime}}}
	killWorkers(t, s, startDaemon(t, cfg), address)
}

// killWorkers kills one worker after the other. Every fifth time its successor is
// killed as soon as it is ready, which is a crash at the start: the next one waits
// restart_delay.
func killWorkers(t testkit.T, s scale, d *testkit.Daemon, address string) {
	times := pick(s, 3, 20)
	tr := startTraffic(t, address)
	tr.goOn(pause)
	var kills []killed
	var slowest time.Duration
	for i := range times {
		kills = append(kills, kill(t, d, tr, i%2))
		if i%5 == 2 {
			kills = append(kills, kill(t, d, tr, i%2))
		}
		slowest = max(slowest, time.Since(kills[len(kills)-1].at))
		tr.goOn(pause)
	}
	res := tr.stop()
	judgeKills(t, res, kills)
	t.Logf("%d kills, at most %v until the successor had answered", len(kills), slowest.Round(time.Millisecond))
	if st := d.WaitSettled(); st.Pools[0].Workers[0].LastExit != "killed by SIGKILL" {
		t.Errorf("last exit: %q", st.Pools[0].Workers[0].LastExit)
	}
	d.Stop()
}

// kill kills the worker of a slot, or of the only one, and waits until its
// successor has answered.
func kill(t testkit.T, d *testkit.Daemon, tr *traffic, slot int) killed {
	t.Helper()
	pids := testkit.PIDs(d.Status(), "web")
	slot %= len(pids)
	k := killed{pid: pids[slot]}
	for _, fd := range testkit.FDs(k.pid) {
		if strings.HasPrefix(fd, "socket:") {
			k.held++
		}
	}
	if err := syscall.Kill(k.pid, syscall.SIGKILL); err != nil {
		t.Fatalf("kill -9 %d: %v", k.pid, err)
	}
	k.at = time.Now()
	s := d.Await("a successor", func(s api.Status) bool {
		now := testkit.PIDs(s, "web")
		return len(now) == len(pids) && now[slot] != k.pid
	})
	tr.answeredBy(testkit.PIDs(s, "web"))
	return k
}

// judgeKills checks that only what a killed worker held was lost: a request on a
// connection that it had answered on, or on one that it had accepted at that very
// moment; and never at connect.
func judgeKills(t testkit.T, res load.Result, kills []killed) {
	t.Helper()
	const (
		moment = 500 * time.Millisecond // by then a client has noticed, on a busy machine
		slack  = 10                     // accepted between the count and the kill
	)
	lost := make([]int, len(kills))
	for _, e := range res.Examples {
		blame := -1
		for i, k := range kills {
			if d := e.At - k.at.Sub(res.Start); d > -50*time.Millisecond && d < moment && (!e.Reused || e.PID == k.pid) {
				blame = i
			}
		}
		switch {
		case e.Kind != load.Reset && e.Kind != load.EOFBeforeAnswer && e.Kind != load.EOFInAnswer:
			t.Errorf("not a connection that a killed worker held: %v", e)
		case blame < 0:
			t.Errorf("no worker was killed that had it: %v", e)
		default:
			lost[blame]++
		}
	}
	var parts []string
	for i, k := range kills {
		parts = append(parts, fmt.Sprintf("%d of %d", lost[i], k.held))
		if lost[i] > k.held+slack {
			t.Errorf("kill of %d: %d requests lost, and it held %d sockets", k.pid, lost[i], k.held)
		}
	}
	for _, p := range res.Problems {
		if !strings.Contains(p, "requests failed") {
			t.Errorf("load: %s", p)
		}
	}
	t.Logf("lost, of the sockets the worker had, at each kill: %s", strings.Join(parts, ", "))
}
