package main

import (
	"encoding/json"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/f72e338e/supervisord/internal/api"
	"github.com/f72e338e/supervisord/internal/testkit"
)

func TestReload(t *testing.T) {
	w := web{address: testkit.Address(t), workers: 2}
	d := start(t, w)
	before := testkit.PIDs(d.Status(), "web")
	expect(t, d.Run("reload"), 0, "reloaded")
	if now := testkit.PIDs(d.Status(), "web"); !maps.Equal(before, now) {
		t.Errorf("nothing had changed, and workers %v were replaced by %v", before, now)
	}

	w.pool = `env = { A = "1" }`
	d.Configure(w.toml(t))
	expect(t, d.Run("reload"), 0, "rollout started", "worker ready", "rollout done", "reloaded")
	changed := testkit.PIDs(d.Status(), "web")
	for slot, pid := range changed {
		if pid == before[slot] || len(changed) != 2 {
			t.Errorf("workers %v after %v", changed, before)
		}
	}

	d.Configure(bad)
	out := d.Run("reload")
	expect(t, out, exitConfig, "polcy", `"wbe"`, `"30s"`)
	for _, at := range badLines {
		if !strings.Contains(out.Stderr, d.File+at) {
			t.Errorf("no error at line %s\n%v", at, out)
		}
	}
	if now := testkit.PIDs(d.Status(), "web"); !maps.Equal(changed, now) {
		t.Errorf("a bad file changed the workers: %v, then %v", changed, now)
	}
	// Commands find the master although the file that names its socket is bad.
	expect(t, d.Run("status", "-c", d.File), 0, "running")
	d.Stop()
}

// A command that waits can be told not to, or not for long; the operation goes on.
func TestWaiting(t *testing.T) {
	w := web{address: testkit.Address(t), workers: 1, args: []string{"--delay", "700ms"}}
	d := start(t, w)
	first := testkit.PIDs(d.Status(), "web")[0]
	expect(t, d.Run("restart", "--no-wait").Within(t, 600*time.Millisecond), 0)
	d.Await("the end of the restart", func(s api.Status) bool {
		pid := testkit.PIDs(s, "web")[0]
		return pid != 0 && pid != first && s.Pools[0].Rollout == nil
	})
	second := testkit.PIDs(d.WaitSettled(), "web")[0]
	expect(t, d.Run("restart", "--timeout", "100ms"), exitTimeout, "not done after 100ms", "goes on")
	d.Await("the end of the restart", func(s api.Status) bool {
		pid := testkit.PIDs(s, "web")[0]
		return pid != 0 && pid != second && s.Pools[0].Rollout == nil
	})
	d.WaitSettled()

	var lines []api.Line
	for line := range strings.Lines(d.Must("restart", "--json").Stdout) {
		var l api.Line
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		lines = append(lines, l)
	}
	if n := len(lines); n < 3 || lines[0].Operation == 0 || lines[n-1].Result == nil || lines[n-1].Result.Error != "" {
		t.Errorf("lines of restart --json: %+v", lines)
	}
	d.Stop()
}

func TestRestart(t *testing.T) {
	worker := testkit.Program(t, "cmd/worker")
	w := web{address: testkit.Address(t), workers: 2, rest: `
[pool.other]
command = ["` + worker + `", "--listen", "` + testkit.Address(t) + `"]
[pool.other.rollout]
monitor = "0s"
`}
	d := start(t, w)
	pids := func() map[string]int {
		s := d.Status()
		return map[string]int{"web0": testkit.PIDs(s, "web")[0], "web1": testkit.PIDs(s, "web")[1], "other": testkit.PIDs(s, "other")[0]}
	}
	before := pids()
	expect(t, d.Run("restart", "other"), 0, "restarted")
	after := pids()
	if after["web0"] != before["web0"] || after["web1"] != before["web1"] || after["other"] == before["other"] {
		t.Errorf("restart other: %v, then %v", before, after)
	}
	expect(t, d.Run("restart"), 0, "restarted")
	for name, pid := range pids() {
		if pid == 0 || pid == after[name] {
			t.Errorf("restart: %s is %d, was %d", name, pid, after[name])
		}
	}
	expect(t, d.Run("restart", "nosuch"), exitUsage, "there is no pool nosuch")
	d.Stop()
}

func TestScale(t *testing.T) {
	w := web{address: testkit.Address(t), workers: 1}
	d := start(t, w)
	expect(t, d.Run("scale", "web", "3"), 0, "pool web has 3 workers")
	if s := d.Status(); s.Pools[0].Ready != 3 || s.Pools[0].Desired != 3 {
		t.Errorf("%+v", s.Pools[0])
	}
	d.Must("reload") // holds until the file's own number changes
	if s := d.Status(); s.Pools[0].Desired != 3 {
		t.Errorf("after a reload: %+v", s.Pools[0])
	}
	w.workers = 2
	d.Configure(w.toml(t))
	d.Must("reload")
	if s := d.WaitSettled(); s.Pools[0].Desired != 2 {
		t.Errorf("after a reload with another number: %+v", s.Pools[0])
	}
	expect(t, d.Run("scale", "web", "0"), 0, "pool web has 0 workers")
	d.Await("a pool without workers", func(s api.Status) bool { return len(s.Pools[0].Workers) == 0 })
	expect(t, d.Run("scale", "web", "1"), 0)
	get(t, w.address)
	expect(t, d.Run("scale", "nosuch", "1"), exitUsage, "there is no pool nosuch")
	d.Stop()
}

func TestStop(t *testing.T) {
	for _, args := range [][]string{{"stop"}, {"stop", "--fast"}, {"stop", "--json"}, {"stop", "--no-wait"}} {
		w := web{address: testkit.Address(t), workers: 2}
		d := start(t, w)
		hold(t, w.address, 2) // idle: closed after idle_grace, or at once
		out := d.Run(args...)
		expect(t, out, 0)
		if len(args) == 1 && !out.Has("worker draining", "stopped") {
			t.Errorf("%v", out)
		}
		d.Ended(0)
	}
}

// What a worker fails with is what the command ends with.
func TestFailedRollout(t *testing.T) {
	w := web{address: testkit.Address(t), workers: 2}
	d := start(t, w)
	before := testkit.PIDs(d.Status(), "web")
	w.args = []string{"--exit-after", "0s"}
	d.Configure(w.toml(t))
	expect(t, d.Run("reload"), exitFailed, "pool web, slot", "exited with code 1", "last lines of worker", "because --exit-after says so", "rolled back")
	if now := testkit.PIDs(d.Status(), "web"); !maps.Equal(before, now) {
		t.Errorf("workers %v after a failed reload, %v before", now, before)
	}
	w.args = []string{"--never-ready"}
	w.pool = `start_timeout = "300ms"`
	d.Configure(w.toml(t))
	expect(t, d.Run("reload"), exitFailed, "not ready within 300ms", "rolled back")
	w.args, w.pool = nil, ""
	d.Configure(w.toml(t))
	expect(t, d.Run("reload"), 0)
	d.Stop()
}
