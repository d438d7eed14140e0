package main

import (
	"strings"
	"time"

	"github.com/f72e338e/supervisord/internal/testkit"
)

// withoutBPF is the environment of a master that may not steer by eBPF.
const withoutBPF = "SUPERVISORD_NO_BPF=1"

func reusePortSteered(t testkit.T, s scale) {
	d := testkit.New(t)
	resizeMembers(t, s, d)
	if log := d.Log(); !strings.Contains(log, "steered by eBPF") {
		t.Errorf("connections were not steered by eBPF:\n%s", log)
	}
}

func reusePortHashed(t testkit.T, s scale) {
	d := testkit.New(t)
	d.Env = append(d.Env, withoutBPF)
	resizeMembers(t, s, d)
	if log := d.Log(); !strings.Contains(log, "spread by hash") {
		t.Errorf("connections were not spread by hash:\n%s", log)
	}
}

// resizeMembers changes the number of workers and the policy, and replaces the
// workers, under load: each worker has a socket of its own, and none may be lost
// with what is in its queue.
func resizeMembers(t testkit.T, s scale, d *testkit.Daemon) {
	times, length := pick(s, 1, 10), pick(s, 4*time.Second, 60*time.Second)
	address := testkit.Address(t)
	cfg := setup{address: address, policy: "reuse_port", pools: []pool{{name: "web", workers: 2}}}
	d.Configure(cfg.toml(t))
	d.Start()
	d.WaitSettled()
	tr := startTraffic(t, address)
	var open []string
	steps := []func(){
		func() { d.Must("scale", "web", "4") },
		func() { d.Must("restart") },
		func() { d.Must("scale", "web", "1") },
		func() { cfg.policy = "shared" },
		func() { d.Must("scale", "web", "3") },
		func() { cfg.policy = "reuse_port" },
		func() { cfg.policy = "least_connections" },
		func() { cfg.policy = "reuse_port" },
		func() { d.Must("scale", "web", "2") },
	}
	for i := range times * len(steps) {
		tr.until(length * time.Duration(i) / time.Duration(times*len(steps)))
		policy := cfg.policy
		steps[i%len(steps)]()
		if cfg.policy != policy {
			d.Configure(cfg.toml(t))
			d.Must("reload")
		}
		tr.answeredBy(testkit.PIDs(d.WaitSettled(), "web"))
		if i == len(steps)-1 {
			open = testkit.FDs(d.PID)
		}
	}
	tr.until(length)
	res := tr.clean()
	t.Logf("%d changes of size or policy, %d workers answered", times*len(steps), len(res.PIDs))
	sameFDs(t, d, open)
	d.Stop()
}

// killMembers kills workers that have a socket of their own: what is in its queue
// waits for the successor.
func killMembers(t testkit.T, s scale) {
	address := testkit.Address(t)
	cfg := setup{address: address, policy: "reuse_port", pools: []pool{{name: "web", workers: 2, settings: oneUptime}}}
	killWorkers(t, s, startDaemon(t, cfg), address)
}
