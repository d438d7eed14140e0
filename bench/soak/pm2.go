package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/f72e338e/supervisord/internal/testkit"
)

// pm2Version is what is fetched where no pm2 is installed.
const pm2Version = "7.0.4"

// pm2Reload lets pm2 reload two processes of the Node server in its cluster mode, under
// the load and at the pace of reloadProgram. What it loses is shown, and not judged.
func pm2Reload(t testkit.T, _ scale) {
	times, length := 10, 30*time.Second
	node := search(t, "node")
	address := testkit.Address(t)
	_, port, _ := net.SplitHostPort(address)
	p := startPM2(t)
	server := p.unpack("server.js")
	p.must(0, "start", server, "--name", "web", "--interpreter", node, "--instances", "2", "--", port)
	testkit.Until(t, testkit.Patience, "pm2's workers listen", func() bool {
		c, err := net.Dial("tcp", address)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
	tr := startClients(t, address, 32)
	var slowest time.Duration
	for i := range times {
		tr.until(length * time.Duration(i+1) / time.Duration(times+1))
		begun := time.Now()
		p.must(i+1, "reload", "web", "--update-env")
		slowest = max(slowest, time.Since(begun))
	}
	tr.until(length)
	res := tr.stop()
	t.Logf("pm2 %s: %d reloads, the slowest took %v; %d workers answered, %d were started; %d requests, %d failed %v, %v", p.version, times,
		slowest.Round(time.Millisecond), len(res.PIDs), 2+2*times, res.Begun, res.Failures(), res.Failed, latency(res))
}

// pm2 is a daemon of pm2 of our own.
type pm2 struct {
	t       testkit.T
	dir     string
	program string
	version string
}

// startPM2 runs pm2's daemon in a directory that is removed at the end, with all that
// it has started.
func startPM2(t testkit.T) *pm2 {
	t.Helper()
	dir, err := os.MkdirTemp("", "sd-pm2-")
	if err != nil {
		t.Fatalf("no directory for pm2: %v", err)
	}
	p := &pm2{t: t, dir: dir}
	t.Cleanup(p.remove)
	if p.program, err = exec.LookPath("pm2"); err != nil {
		p.fetch()
	}
	lines := strings.Fields(p.must(0, "--version"))
	p.version = lines[len(lines)-1]
	return p
}

// fetch installs pm2 into the directory; from npm's cache if it was fetched before, so
// that it can be had where there is no network.
func (p *pm2) fetch() {
	p.t.Helper()
	npm := search(p.t, "npm")
	ctx, cancel := context.WithTimeout(p.t.Context(), 4*testkit.Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, npm, "install", "--prefer-offline", "--fetch-retries=0", "--no-audit", "--no-fund", "--prefix", p.dir, "pm2@"+pm2Version)
	cmd.Dir = p.dir
	if text, err := cmd.CombinedOutput(); err != nil {
		p.t.Skipf("cannot fetch pm2: %v\n%s", err, text)
	}
	p.program = p.dir + "/node_modules/.bin/pm2"
}

// mark is in the environment of the daemon, and so of all that it starts.
func (p *pm2) mark() string { return "PM2_HOME=" + p.dir + "/home" }

// must runs a command that has to succeed, and returns what it said.
func (p *pm2) must(round int, args ...string) string {
	p.t.Helper()
	out := testkit.Exec(p.t, testkit.Command{Path: p.program, Args: args, Dir: p.dir, Env: []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + p.dir, p.mark(), fmt.Sprintf("ROUND=%d", round)}})
	if out.Code != 0 {
		p.t.Fatalf("%v", out)
	}
	return out.Stdout
}

func (p *pm2) unpack(name string) string {
	p.t.Helper()
	text, err := programs.ReadFile("programs/" + name)
	if err == nil {
		err = os.WriteFile(p.dir+"/"+name, text, 0o600)
	}
	if err != nil {
		p.t.Fatalf("%v", err)
	}
	return p.dir + "/" + name
}

// remove kills the daemon and what it has started, until nothing of it is left.
func (p *pm2) remove() {
	p.t.Helper()
	if !testkit.Eventually(p.t, testkit.Patience, func() bool {
		left := testkit.WithVariable(p.mark())
		for _, pid := range left {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		return len(left) == 0
	}) {
		p.t.Errorf("processes of pm2 are left")
	}
	_ = os.RemoveAll(p.dir)
}
