package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"github.com/f72e338e/supervisord/bench/load"
	"github.com/f72e338e/supervisord/internal/testkit"
)

// baseline compares two supervised workers with the same server started by hand
// twice on one socket. The ratio is judged in full only: a test is no benchmark.
func baseline(t testkit.T, s scale) {
	const (
		least = 0.97
		procs = 1 // GOMAXPROCS of each server
	)
	rounds, length := pick(s, 1, 15), pick(s, time.Second, 2*time.Second)
	supervised := testkit.Address(t)
	d := testkit.NewWith(t, testkit.PlainProgram(t, "cmd/supervisord"))
	cfg := setup{address: supervised, pools: []pool{{name: "web", workers: 2}}}
	cfg.pools[0].settings = fmt.Sprintf("env.GOMAXPROCS = \"%d\"\nenv.ROUND = \"0\"\n", procs)
	toml := cfg.with(testkit.PlainProgram(t, "cmd/worker"))
	d.Configure(dropLine(toml, "env = {"))
	d.Start()
	pids := testkit.PIDs(d.WaitSettled(), "web")
	d.HangUp()
	byHand, handPIDs := startByHand(t, testkit.PlainProgram(t, "bench/plain"), 2, procs)

	side := func(name, target string, pids []int) load.Side {
		plan := load.Plan{Duration: length, CPUOf: pids, Groups: []load.Group{{Name: "new", Target: target, Clients: 8}}}
		return load.Side{Name: name, Run: func() (load.Sample, error) {
			res, err := load.Run(t.Context(), plan)
			if err == nil {
				err = res.Err()
			}
			return res.Sample(), err
		}}
	}
	a, b := side("supervised", supervised, []int{pids[0], pids[1]}), side("by hand", byHand, handPIDs)
	for _, warm := range []load.Side{a, b} {
		if _, err := warm.Run(); err != nil {
			t.Fatalf("%s: %v", warm.Name, err)
		}
	}
	c, err := load.Alternate(rounds, a, b)
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Logf("%d processors, GOMAXPROCS=%d, 8 clients, a new connection for each request, %v a run", runtime.NumCPU(), procs, length)
	for i, r := range c.Rounds {
		t.Logf("round %d: supervised %.0f/s p99 %v, by hand %.0f/s p99 %v, ratio %.3f", i+1, r[0].Rate, r[0].P99, r[1].Rate, r[1].P99, r[0].Rate/r[1].Rate)
	}
	t.Logf("%s", comparison(c))
	if s.full && c.Pairwise.Rate < least {
		t.Errorf("%.3f of the rate by hand, want at least %.2f", c.Pairwise.Rate, least)
	}
	d.Stop()
}

// startByHand runs a server some times on one socket.
func startByHand(t testkit.T, program string, times, procs int) (address string, pids []int) {
	t.Helper()
	l, err := net.Listen("tcp", testkit.Address(t))
	if err != nil {
		t.Fatalf("%v", err)
	}
	file, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatalf("%v", err)
	}
	defer func() { _ = file.Close(); _ = l.Close() }()
	for i := range times {
		cmd := exec.Command(program, fmt.Sprint(i))
		cmd.Env = []string{fmt.Sprintf("GOMAXPROCS=%d", procs)}
		cmd.ExtraFiles, cmd.Stderr = []*os.File{file}, os.Stderr
		// Each in a session of its own, as supervised workers are: the kernel shares
		// the processors out by session (sched(7), autogroup), and a server in the
		// session of the load client would be compared under another rule.
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := cmd.Start(); err != nil {
			t.Fatalf("%v", err)
		}
		t.Cleanup(func() {
			_ = cmd.Process.Signal(syscall.SIGKILL)
			_ = cmd.Wait()
		})
		pids = append(pids, cmd.Process.Pid)
	}
	return l.Addr().String(), pids
}
