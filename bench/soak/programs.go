package main

import (
	"embed"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/f72e338e/supervisord/bench/load"
	"github.com/f72e338e/supervisord/internal/testkit"
)

// programs are servers as somebody writes them who does not know us.
//
//go:embed programs
var programs embed.FS

func reloadNodeRoundRobin(t testkit.T, s scale) { reloadNode(t, s, "round_robin") }
func reloadNodeShared(t testkit.T, s scale)     { reloadNode(t, s, "shared") }

func reloadNode(t testkit.T, s scale, policy string) {
	node := search(t, "node")
	d := testkit.New(t)
	address := testkit.Address(t)
	reloadProgram(t, s, d, setup{address: address, policy: policy}, nodePool(t, d, node, address))
}

// nodePool is a pool of two plain Node servers.
func nodePool(t testkit.T, d *testkit.Daemon, node, address string) pool {
	t.Helper()
	_, port, _ := net.SplitHostPort(address)
	return pool{name: "web", workers: 2, program: node, args: []string{unpack(t, d, "server.js"), port}, settings: `protocol = "node"`}
}

func reloadAsyncio(t testkit.T, s scale) {
	python := search(t, "/usr/bin/python3", "python3")
	d := testkit.New(t)
	reloadProgram(t, s, d, setup{address: testkit.Address(t)},
		pool{name: "web", workers: 2, program: python, args: []string{unpack(t, d, "server.py")}, settings: `protocol = "systemd"`})
}

func reloadPuma(t testkit.T, s scale) {
	puma := search(t, "puma")
	d := testkit.New(t)
	args := []string{"--config", unpack(t, d, "puma.rb"), unpack(t, d, "config.ru")}
	reloadProgram(t, s, d, setup{address: testkit.Address(t)},
		pool{name: "web", workers: 2, program: puma, args: args, settings: `protocol = "systemd"`})
}

func reloadGoActivation(t testkit.T, s scale) {
	d := testkit.New(t)
	reloadProgram(t, s, d, setup{address: testkit.Address(t)},
		pool{name: "web", workers: 2, program: buildActivation(t, d), settings: `protocol = "systemd"`})
}

// reloadProgram reloads a pool of two again and again, whose environment changes each
// time, under clients that open a new connection for each request. All new workers
// have answered before the next reload.
func reloadProgram(t testkit.T, s scale, d *testkit.Daemon, cfg setup, p pool) {
	times, length := pick(s, 2, 10), pick(s, 3*time.Second, 30*time.Second)
	cfg.pools = []pool{p}
	configure := func(round int) {
		cfg.pools[0].round = round
		d.Configure(cfg.with(""))
	}
	configure(0)
	d.Start()
	before := testkit.PIDs(d.WaitSettled(), "web")
	open := steadyFDs(t, d)
	tr := startClients(t, cfg.address, pick(s, 8, 32)) // fewer beside other tests
	tr.answeredBy(before)
	var slowest time.Duration
	for i := range times {
		tr.until(length * time.Duration(i+1) / time.Duration(times+1))
		configure(i + 1)
		slowest = max(slowest, d.Must("reload").Took)
		now := testkit.PIDs(d.Status(), "web")
		for slot, pid := range now {
			if pid == before[slot] {
				t.Errorf("after reload %d: slot %d still has process %d", i+1, slot, pid)
			}
		}
		if len(now) != 2 {
			t.Errorf("after reload %d: ready workers %v, want 2", i+1, now)
		}
		tr.answeredBy(now)
		before = now
	}
	tr.until(length)
	res := tr.clean()
	if res.ResetAfter > 0 {
		t.Errorf("%d connections were reset behind a full answer", res.ResetAfter)
	}
	t.Logf("%d reloads, the slowest took %v; %d workers answered, %d were started; %d requests, %d failed, %v", times,
		slowest.Round(time.Millisecond), len(res.PIDs), 2+2*times, res.Begun, res.Failures(), latency(res))
	if len(res.PIDs) != 2+2*times {
		t.Errorf("%d processes answered, want %d", len(res.PIDs), 2+2*times)
	}
	d.WaitSettled()
	sameFDs(t, d, open)
	for line := range strings.Lines(d.Log()) {
		if strings.Contains(line, "[WARN]") || strings.Contains(line, "[ERROR]") {
			t.Errorf("the master warns: %s", line)
		}
	}
	d.Stop()
}

// startClients begins the load of some clients that open a new connection for each
// request, one after the other.
func startClients(t testkit.T, target string, clients int) *traffic {
	t.Helper()
	return startLoad(t, load.Group{Name: "new", Target: target, Clients: clients})
}

func latency(res load.Result) string {
	l := res.Latency
	return fmt.Sprintf("p50 %v, p99 %v, longest %v", l.P50.Round(time.Microsecond), l.P99.Round(time.Microsecond), l.Max.Round(time.Microsecond))
}

// search returns the first of these programs that there is.
func search(t testkit.T, names ...string) string {
	t.Helper()
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Skipf("needs %s, which is not installed", names[len(names)-1])
	return ""
}

// unpack writes one of the programs into the daemon's directory, and returns its path.
func unpack(t testkit.T, d *testkit.Daemon, name string) string {
	t.Helper()
	text, err := programs.ReadFile("programs/" + name)
	if err != nil {
		t.Fatalf("%v", err)
	}
	d.Write(name, string(text))
	return d.Path(name)
}

// buildActivation builds the program that has a module of its own, so that its
// requirements are not ours.
func buildActivation(t testkit.T, d *testkit.Daemon) string {
	t.Helper()
	root, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		t.Fatalf("not in the module: %v", err)
	}
	dir := filepath.Join(strings.TrimSpace(string(root)), "bench/soak/testdata/activation")
	run := func(args ...string) (string, error) {
		cmd := exec.Command("go", append([]string{args[0], "-C", dir}, args[1:]...)...)
		cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=readonly")
		text, err := cmd.CombinedOutput()
		return string(text), err
	}
	if text, err := run("mod", "download"); err != nil {
		t.Skipf("cannot fetch what the program requires: %v\n%s", err, text)
	}
	out := d.Path("activation")
	if text, err := run("build", "-o", out, "."); err != nil {
		t.Fatalf("cannot build %s: %v\n%s", dir, err, text)
	}
	return out
}
