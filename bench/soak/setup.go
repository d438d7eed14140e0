package main

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/f72e338e/supervisord/internal/testkit"
)

// setup is a configuration: a listener "web", if there is an address, and pools.
type setup struct {
	address string
	policy  string // of the listener; "" = shared
	pools   []pool
	rest    string
}

// pool is one pool, of reference workers if nothing else is said.
type pool struct {
	name     string
	program  string // of the workers; "": the setup's
	workers  int
	args     []string // of the worker
	round    int      // another number is another environment, so a changed pool
	settings string   // more lines of the section
	unbound  bool     // without the listener
}

func (s setup) toml(t testkit.T) string {
	return s.with(testkit.Program(t, "cmd/worker"))
}

// with writes the configuration with another worker.
func (s setup) with(worker string) string {
	var b strings.Builder
	if s.address != "" {
		fmt.Fprintf(&b, "[listener.web]\naddress = %q\npolicy = %q\n\n", s.address, cmp.Or(s.policy, "shared"))
	}
	for _, p := range s.pools {
		fmt.Fprintf(&b, "[pool.%s]\ncommand = [\"%s\"]\nworkers = %d\nenv = { ROUND = \"%d\", GORACE = \"atexit_sleep_ms=0\" }\n", p.name,
			strings.Join(append([]string{cmp.Or(p.program, worker)}, p.args...), `", "`), p.workers, p.round)
		if s.address != "" && !p.unbound {
			b.WriteString("listeners = [\"web\"]\n")
		}
		fmt.Fprintf(&b, "%s\n[pool.%s.rollout]\nmonitor = \"0s\"\n\n", p.settings, p.name)
	}
	return b.String() + s.rest
}

// startDaemon runs a daemon with the configuration.
func startDaemon(t testkit.T, s setup) *testkit.Daemon {
	t.Helper()
	d := testkit.New(t)
	d.Configure(s.toml(t))
	d.Start()
	return d
}

// dropLine removes the lines that begin so.
func dropLine(text, begin string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, begin) {
			b.WriteString(line)
		}
	}
	return b.String()
}
