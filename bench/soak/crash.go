package main

import (
	"fmt"
	"maps"
	"syscall"
	"time"

	"github.com/f72e338e/supervisord/bench/load"
	"github.com/f72e338e/supervisord/internal/api"
	"github.com/f72e338e/supervisord/internal/proto"
	"github.com/f72e338e/supervisord/internal/testkit"
)

// killMaster kills the master again and again under load: the workers stay, the next
// master knows them, and a reload works.
func killMaster(t testkit.T, s scale) {
	for _, policy := range proto.Policies {
		killMasterOf(t, s, policy, pool{name: "web", workers: 2, settings: oneUptime})
	}
}

func killMasterOf(t testkit.T, s scale, policy string, p pool) {
	address := testkit.Address(t)
	cfg := setup{address: address, policy: policy, pools: []pool{p}}
	d := testkit.New(t)
	d.Keeper = true
	d.Configure(cfg.toml(t))
	d.Start()
	before := testkit.PIDs(d.WaitSettled(), "web")
	tr := startTraffic(t, address)
	var slowest time.Duration
	times := pick(s, 3, 20)
	for i := range times {
		took := crash(t, d, i+1)
		slowest = max(slowest, took)
		if now := testkit.PIDs(d.Status(), "web"); !maps.Equal(now, before) {
			t.Errorf("%s: after crash %d the workers are %v, and were %v", policy, i+1, now, before)
		}
		countsAreRight(t, d, policy)
		tr.goOn(200 * time.Millisecond)
	}
	cfg.pools[0].round++
	d.Configure(cfg.toml(t))
	d.Must("reload")
	after := testkit.PIDs(d.WaitSettled(), "web")
	for slot, pid := range after {
		if pid == before[slot] {
			t.Errorf("%s: after the reload slot %d still has process %d", policy, slot, pid)
		}
	}
	tr.answeredBy(after)
	lost := judgeCrashes(t, tr.stop(), policy, times)
	t.Logf("%s: %d crashes of the master, %d connections lost; the next one answered after %v at most", policy, times, lost, slowest.Round(time.Millisecond))
	d.Stop()
}

// crash kills the master, and waits for the next one to be complete.
func crash(t testkit.T, d *testkit.Daemon, recoveries int) time.Duration {
	t.Helper()
	pid := d.Status().Master.PID
	begun := time.Now()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatalf("kill -9 %d: %v", pid, err)
	}
	d.Await("the next master", func(s api.Status) bool {
		return s.Master.PID != pid && s.Master.State == "running" && s.Master.Recoveries == recoveries && s.Pools[0].Ready == s.Pools[0].Desired
	})
	return time.Since(begun)
}

// countsAreRight checks that the next master knows within a second how many connections
// there are. Those of the load that are kept are known; the others come and go.
func countsAreRight(t testkit.T, d *testkit.Daemon, policy string) {
	t.Helper()
	_, kept := usualLoad()
	last := int64(-1)
	if !testkit.Eventually(t, time.Second, func() bool {
		last = 0
		for _, w := range d.Status().Pools[0].Workers {
			if w.Connections == nil {
				last = -1
				return false
			}
			last += *w.Connections
		}
		return last >= int64(kept) && last <= int64(kept)+20
	}) {
		t.Errorf("%s: %d connections by the status, %d are kept open", policy, last, kept)
	}
}

// judgeCrashes: where the master is in the path of a connection it may take along, at
// each crash, one that it had accepted and not handed over.
func judgeCrashes(t testkit.T, res load.Result, policy string, times int) (lost int) {
	t.Helper()
	if !proto.IsDispatched(policy) {
		times = 0
	}
	for _, e := range res.Examples {
		if times == 0 || e.Reused || e.Kind != load.Reset && e.Kind != load.EOFBeforeAnswer {
			t.Errorf("%s: lost: %v", policy, e)
		}
		lost++
	}
	if lost > times {
		t.Errorf("%s: %d connections lost in %d crashes", policy, lost, times)
	}
	if lost == 0 && res.Err() != nil {
		t.Errorf("%s: %v", policy, fmt.Sprintf("%.2000s", res.Err()))
	}
	return lost
}
