package main

import (
	"slices"
	"time"

	"github.com/f72e338e/supervisord/internal/testkit"
)

func reloadRestartTCP(t testkit.T, s scale) {
	d := testkit.New(t)
	reloadRestart(t, s, d, testkit.Address(t))
}

func reloadRestartUnix(t testkit.T, s scale) {
	d := testkit.New(t)
	reloadRestart(t, s, d, "unix:"+d.Path("web.sock"))
}

// reloadRestartPolicies has another policy with each reload.
func reloadRestartPolicies(t testkit.T, s scale) {
	d := testkit.New(t)
	reloadRestart(t, s, d, testkit.Address(t), "round_robin", "shared", "least_connections", "source_hash", "round_robin")
}

// reloadRestart reloads a file that changes each time, and restarts, in turn. Each
// command's new workers have answered before the next one.
func reloadRestart(t testkit.T, s scale, d *testkit.Daemon, address string, policies ...string) {
	times, length := pick(s, 3, 20), pick(s, 4*time.Second, 60*time.Second)
	cfg := setup{address: address, pools: []pool{{name: "web", workers: 2}}}
	next := func(i int) {
		if len(policies) > 0 {
			cfg.policy = policies[i%len(policies)]
		}
	}
	next(0)
	d.Configure(cfg.toml(t))
	d.Start()
	before := testkit.PIDs(d.WaitSettled(), "web")
	open := testkit.FDs(d.PID)
	tr := startTraffic(t, address)
	replaced := func(what string) {
		now := testkit.PIDs(d.Status(), "web")
		if len(now) != 2 {
			t.Errorf("after a %s: ready workers %v, want 2", what, now)
		}
		for slot, pid := range now {
			if pid == before[slot] {
				t.Errorf("after a %s: slot %d still has process %d", what, slot, pid)
			}
		}
		tr.answeredBy(now)
		before = now
	}
	var slowest time.Duration
	for i := range times {
		tr.until(length * time.Duration(2*i) / time.Duration(2*times))
		cfg.pools[0].round = i + 1
		next(i + 1)
		d.Configure(cfg.toml(t))
		slowest = max(slowest, d.Must("reload").Took)
		replaced("reload")
		tr.until(length * time.Duration(2*i+1) / time.Duration(2*times))
		slowest = max(slowest, d.Must("restart").Took)
		replaced("restart")
	}
	tr.until(length)
	res := tr.clean()
	t.Logf("%d reloads and %d restarts, the slowest command took %v; %d workers answered, %d were started", times, times,
		slowest.Round(time.Millisecond), len(res.PIDs), 2+4*times)
	if len(res.PIDs) != 2+4*times {
		t.Errorf("%d processes answered, want %d", len(res.PIDs), 2+4*times)
	}
	d.WaitSettled()
	sameFDs(t, d, open)
	d.Stop()
}

// steadyFDs returns the descriptors of a master at rest. When a worker begins to listen
// it looks at the socket, and has a descriptor more for that.
func steadyFDs(t testkit.T, d *testkit.Daemon) []string {
	t.Helper()
	const enough = 10
	var last []string
	same := 0
	testkit.Until(t, testkit.Patience, "a master that opens nothing", func() bool {
		now := testkit.FDs(d.PID)
		if same++; !slices.Equal(now, last) {
			last, same = now, 0
		}
		return same == enough
	})
	return last
}

// sameFDs checks that the master has as many descriptors as before.
func sameFDs(t testkit.T, d *testkit.Daemon, before []string) {
	t.Helper()
	var now []string
	if !testkit.Eventually(t, testkit.Patience, func() bool {
		d.Status() // one open control connection, as when they were counted before
		now = testkit.FDs(d.PID)
		// Pages for counts are made eight at a time, so there may be some in stock.
		return len(now)-bpfMaps(now) == len(before)-bpfMaps(before) && bpfMaps(now) <= bpfMaps(before)+8
	}) {
		t.Errorf("the master has %d descriptors (%s), before it had %d (%s)", len(now), testkit.FDKinds(now), len(before), testkit.FDKinds(before))
		return
	}
	t.Logf("descriptors of the master: %d before, %d after", len(before), len(now))
}

// bpfMaps is how many of the descriptors are BPF maps.
func bpfMaps(fds []string) (n int) {
	for _, to := range fds {
		if to == "anon_inode:bpf-map" {
			n++
		}
	}
	return n
}
