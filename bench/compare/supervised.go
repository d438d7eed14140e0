package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/f72e338e/supervisord/internal/api"
)

// variant is one way in which the daemon runs the server: a row of the tables. What
// the daemon does by default is not stated, so that its defaults are measured.
type variant struct {
	name     string
	policy   string
	pool     string   // more lines of [pool.web]
	limits   string   // lines of [pool.web.limits]
	env      []string // more environment of the daemon
	program  string   // of the workers; "": bench/compare/server
	cases    []string // only these; none: all
	node     bool     // the workers are Node's, with the program of the peers
	optional bool     // a daemon that refuses the configuration does not have it yet
}

const (
	oneProcessor = `env = { GOMAXPROCS = "1" }`
	batch        = `scheduling = "batch"`
	ordinary     = `scheduling = "other"`
	noBPF        = "SUPERVISORD_NO_BPF=1"
)

// allProcessors is how Go programs come.
var allProcessors = fmt.Sprintf(`env = { GOMAXPROCS = "%d" }`, runtime.NumCPU())

var variants = []variant{
	{name: "shared", policy: "shared"},
	{name: "shared, GOMAXPROCS=1", policy: "shared", pool: oneProcessor},
	{name: "shared, batch", policy: "shared", limits: batch},
	{name: "shared, other", policy: "shared", limits: ordinary},
	{name: "shared, as plain Go", policy: "shared", pool: allProcessors, limits: ordinary},
	{name: "round_robin", policy: "round_robin"},
	{name: "round_robin, batch", policy: "round_robin", limits: batch},
	{name: "round_robin, other", policy: "round_robin", limits: ordinary},
	{name: "least_connections", policy: "least_connections"},
	{name: "source_hash", policy: "source_hash"},
	{name: "reuse_port", policy: "reuse_port", optional: true},
	{name: "reuse_port, hash", policy: "reuse_port", env: []string{noBPF}, optional: true},
	{name: "reuse_port, batch", policy: "reuse_port", limits: batch, optional: true},
	{name: nodeRROurs, policy: "round_robin", node: true},
	{name: "Node's workers, shared", policy: "shared", node: true},
	{name: "shared, net/http", policy: "shared", program: "cmd/worker", cases: []string{"rate"}},
}

// configuration is the file of the daemon.
func (v variant) configuration(address string, command []string, workers int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "[listener.web]\naddress = %q\npolicy = %q\n\n", address, v.policy)
	fmt.Fprintf(&b, "[pool.web]\ncommand = [\"%s\"]\nworkers = %d\nlisteners = [\"web\"]\n", strings.Join(command, `", "`), workers)
	if v.node {
		fmt.Fprintln(&b, `protocol = "node"`)
	}
	if v.pool != "" {
		fmt.Fprintln(&b, v.pool)
	}
	if v.limits != "" {
		fmt.Fprintf(&b, "\n[pool.web.limits]\n%s\n", v.limits)
	}
	return b.String()
}

// start runs a daemon and waits until its workers are ready.
func (v variant) start(ctx context.Context, k *kit, dir string, workers int) (*server, error) {
	address, port, err := freeAddress()
	if err != nil {
		return nil, err
	}
	command, err := v.command(k, dir, port, workers)
	if err != nil {
		return nil, err
	}
	file, socket := filepath.Join(dir, "supervisord.toml"), filepath.Join(dir, "control.sock")
	toml := v.configuration(address, command, workers)
	if err := os.WriteFile(file, []byte(toml), 0o600); err != nil {
		return nil, err
	}
	daemon, env := k.program("cmd/supervisord"), environment(dir, v.env...)
	if err := v.check(ctx, daemon, file, env); err != nil {
		return nil, err
	}
	p, err := k.launch(dir, env, nil, daemon, "run", "--no-keeper", "-c", file, "--socket", socket)
	if err != nil {
		return nil, err
	}
	s := &server{address: address, master: p.pid(), processes: []*process{p}}
	err = p.until(ctx, "its workers were ready", func() bool {
		s.workers = readyWorkers(ctx, socket)
		return len(s.workers) == workers
	})
	if err != nil {
		s.stop()
		return nil, err
	}
	return s, nil
}

// command is what the workers execute.
func (v variant) command(k *kit, dir string, port, workers int) ([]string, error) {
	if !v.node {
		return []string{k.program(cmp.Or(v.program, "bench/compare/server"))}, nil
	}
	program, err := searchPath("node")
	if err != nil {
		return nil, missing("node")
	}
	script, err := unpack(dir, "peers/cluster.js")
	return []string{program, script, strconv.Itoa(port), strconv.Itoa(workers)}, err
}

// place is what is left of file:line: in front of a complaint.
var place = regexp.MustCompile(`(?m)^(supervisord: )?:\d+: `)

// check asks the daemon whether it takes the configuration.
func (v variant) check(ctx context.Context, daemon, file string, env []string) error {
	cmd := exec.CommandContext(ctx, daemon, "check", "-c", file)
	cmd.Env = env
	text, err := cmd.CombinedOutput()
	if err == nil {
		return nil
	}
	reason := lastLines(place.ReplaceAllString(strings.ReplaceAll(string(text), file, ""), ""))
	if v.optional {
		return unavailable{reason}
	}
	return fmt.Errorf("the daemon refuses its configuration: %s", reason)
}

// readyWorkers asks a daemon for the processes of its ready workers; none when it
// does not answer yet.
func readyWorkers(ctx context.Context, socket string) []int {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	c, err := api.Dial(ctx, []string{socket})
	if err != nil {
		return nil
	}
	defer c.Close()
	status, err := c.Status(ctx)
	if err != nil || status.Master.State != "running" {
		return nil
	}
	var pids []int
	for _, pool := range status.Pools {
		for _, w := range pool.Workers {
			if w.State == "ready" && w.PID != nil {
				pids = append(pids, *w.PID)
			}
		}
	}
	return pids
}
