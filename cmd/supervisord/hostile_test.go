package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/f72e338e/supervisord/bench/load"
	"github.com/f72e338e/supervisord/internal/api"
	"github.com/f72e338e/supervisord/internal/testkit"
)

// TestHostileWorkers: whatever a worker does on its link, the workers of another
// pool answer as ever, the master's memory and descriptors stay flat, and the log
// names who it was.
func TestHostileWorkers(t *testing.T) {
	hostile := testkit.Program(t, "cmd/supervisord/testdata/hostile")
	modes := []string{"silent", "garbage", "huge", "files", "flood", "forbidden", "hoard"}
	address := testkit.Address(t)
	toml := fmt.Sprintf("[listener.web]\naddress = %q\n[pool.good]\ncommand = [%q]\nworkers = 2\nlisteners = [\"web\"]\n", address, testkit.Program(t, "cmd/worker"))
	for _, mode := range modes {
		timeout := "2s"
		if mode == "hoard" { // which has much to ask for, and is never ready
			timeout = "60s"
		}
		toml += fmt.Sprintf("[pool.%s]\ncommand = [%q, %q]\nstart_timeout = %q\nkill_timeout = \"1s\"\n", mode, hostile, mode, timeout)
	}
	d := testkit.New(t)
	d.Configure(toml)
	d.Launch("run", "-c", d.File, "--socket", d.Socket)
	d.Await("the good workers", func(s api.Status) bool { return len(testkit.PIDs(s, "good")) == 2 })
	before := testkit.PIDs(d.Status(), "good")
	rss, fds := residentKiB(t, d.PID), len(testkit.FDs(d.PID))
	res, err := load.Run(t.Context(), load.Plan{Duration: 4 * time.Second, IgnoreDrops: true, Groups: []load.Group{
		{Name: "new", Target: address, Rate: 50}, {Name: "kept", Target: address, Clients: 5, KeepAlive: true, Every: 100 * time.Millisecond}}})
	if err != nil || res.Failures() > 0 {
		t.Errorf("beside hostile workers: %v %v", err, res.Err())
	}
	if after := testkit.PIDs(d.Status(), "good"); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("good workers were %v, are %v", before, after)
	}
	if now := residentKiB(t, d.PID); now > rss+64<<10 {
		t.Errorf("the master grew from %d to %d KiB", rss, now)
	}
	if now := len(testkit.FDs(d.PID)); now > fds+300 { // 256 is what one worker may hoard
		t.Errorf("the master had %d descriptors, has %d: %s", fds, now, testkit.FDKinds(testkit.FDs(d.PID)))
	}
	d.WaitLog("one worker may have 256")
	log := d.Log()
	for _, want := range []string{"pool=garbage", "sends garbage over its link", "pool=flood", "does not read its link", "pool=forbidden", "may not bind tcp 127.0.0.1:22", "pool=silent", "not ready within 2s"} {
		if !strings.Contains(log, want) {
			t.Errorf("the log does not say %q", want)
		}
	}
	if n := strings.Count(log, "worker refused"); n > 200 {
		t.Errorf("%d log lines about refusals", n)
	}
	d.Run("stop")
	d.Ended(0)
}

func residentKiB(t *testing.T, pid int) int {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(data), "VmRSS:")
	var n int
	_, _ = fmt.Sscan(rest, &n)
	return n
}
