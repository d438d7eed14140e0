package main

import (
	"context"
	"encoding/json"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/f72e338e/supervisord/internal/api"
	"github.com/f72e338e/supervisord/internal/testkit"
)

// The JSON of status is a promise: these keys are there, and null where unknown.
func TestStatus(t *testing.T) {
	w := web{address: testkit.Address(t), workers: 2}
	d := start(t, w)
	expect(t, d.Run("status"), 0, "master pid", "running", d.File, "web", "tcp "+w.address, "2 of 2", "web/0", "web/1", "ready")
	out := d.Must("status", "--json")
	var got map[string]any
	if err := json.Unmarshal([]byte(out.Stdout), &got); err != nil {
		t.Fatalf("%v\n%v", err, out)
	}
	first := func(v any) map[string]any { return v.([]any)[0].(map[string]any) }
	pool := first(got["pools"])
	for _, test := range []struct {
		name string
		have map[string]any
		want string
	}{
		{"status", got, "listeners master pools"},
		{"master", got["master"].(map[string]any), "config pid recoveries state upgrades uptime_seconds version"},
		{"listener", first(got["listeners"]), "address backlog exclusive holders name network policy queued"},
		{"pool", pool, "desired generation name ready rollout workers"},
		{"worker", first(pool["workers"]), "accepted connections cpu_seconds generation id last_exit pid restarts rss_bytes slot state uptime_seconds"},
	} {
		for key := range strings.FieldsSeq(test.want) {
			if _, ok := test.have[key]; !ok {
				t.Errorf("%s has no %q: %v", test.name, key, slices.Sorted(maps.Keys(test.have)))
			}
		}
	}
	s := d.Status()
	l := s.Listeners[0]
	if l.Backlog != 511 || l.Address != w.address || len(l.Holders) != 2 || l.Queued == nil || *l.Queued != 0 || l.Policy != "shared" {
		t.Errorf("listener: %+v", l)
	}
	if pids := testkit.PIDs(s, "web"); len(pids) != 2 || s.Master.PID != d.PID {
		t.Errorf("pids %v of master %d, want %d", pids, s.Master.PID, d.PID)
	}
	d.Stop()
}

func TestConnections(t *testing.T) {
	w := web{address: testkit.Address(t), workers: 2}
	d := start(t, w)
	hold(t, w.address, 3)
	d.Await("three accepted connections", func(s api.Status) bool {
		var n int64
		for _, k := range s.Pools[0].Workers {
			if k.Connections != nil {
				n += *k.Connections
			}
		}
		return n == 3
	})
	expect(t, d.Run("connections"), 0, "SLOT", "web/0", "web/1", "total", "3")
	var c api.Connections
	if err := json.Unmarshal([]byte(d.Must("connections", "web", "--json").Stdout), &c); err != nil || c.Total != 3 || len(c.Workers) != 2 || c.Missing == nil {
		t.Errorf("%+v %v", c, err)
	}
	expect(t, d.Run("connections", "nosuch"), exitUsage, "there is no pool nosuch")

	pid := testkit.PIDs(d.Status(), "web")[1]
	_ = syscall.Kill(pid, syscall.SIGSTOP)
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGCONT) })
	expect(t, d.Run("connections", "--timeout", "200ms"), exitFailed, "web/1", "unknown", "1 of 2 workers are missing")
	_ = syscall.Kill(pid, syscall.SIGCONT)
	expect(t, d.Run("connections"), 0)
	d.Stop()
}

func TestEvents(t *testing.T) {
	d := start(t, web{address: testkit.Address(t), workers: 1})
	expect(t, d.Run("events"), 0, "worker ready", "web/0", "master ready")
	next := uint64(1)
	for line := range strings.Lines(d.Must("events", "--json").Stdout) {
		var e api.Event
		if err := json.Unmarshal([]byte(line), &e); err != nil || e.ID != next || e.Event == "" || e.Time.IsZero() {
			t.Errorf("event %d: %s (%v)", next, line, err)
		}
		next++
	}

	ctx, cancel := context.WithTimeout(t.Context(), testkit.Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, d.Program, "--socket", d.Socket, "events", "-f")
	cmd.Env = d.Env
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	seen := make(chan bool, 1)
	go func() { // ends with the command
		var text []byte
		buf := make([]byte, 4096)
		for {
			n, err := out.Read(buf)
			text = append(text, buf[:n]...)
			if strings.Contains(string(text), "rollout done") || err != nil {
				seen <- err == nil
				return
			}
		}
	}()
	d.Must("restart")
	if !<-seen {
		t.Error("events -f ended before the end of the restart")
	}
	_ = cmd.Process.Signal(syscall.SIGINT)
	if err := cmd.Wait(); err != nil {
		t.Errorf("events -f after SIGINT: %v", err)
	}
	d.Stop()
}
