package main

import (
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/f72e338e/supervisord/internal/api"
	"github.com/f72e338e/supervisord/internal/testkit"
)

func TestSignalHUP(t *testing.T) {
	w := web{address: testkit.Address(t), workers: 1}
	d := start(t, w)
	before := testkit.PIDs(d.Status(), "web")[0]
	w.pool = `env = { A = "1" }`
	d.Configure(w.toml(t))
	d.Signal(syscall.SIGHUP)
	d.Await("another worker", func(s api.Status) bool { pid := testkit.PIDs(s, "web")[0]; return pid != 0 && pid != before })
	d.Configure(bad)
	d.Signal(syscall.SIGHUP)
	d.WaitLog("configuration refused")
	get(t, w.address)
	d.Stop()
}

func TestSignalsStop(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT} {
		d := start(t, web{address: testkit.Address(t), workers: 2})
		d.Signal(sig)
		d.Ended(0)
	}
}

// A worker with a long request keeps a graceful stop waiting; QUIT, or the second
// TERM, does not wait for it.
func TestSecondTermIsFast(t *testing.T) {
	for _, test := range []struct {
		name string
		sigs []syscall.Signal
	}{
		{"TERM twice", []syscall.Signal{syscall.SIGTERM, syscall.SIGTERM}},
		{"INT, then TERM", []syscall.Signal{syscall.SIGINT, syscall.SIGTERM}},
		{"QUIT", []syscall.Signal{syscall.SIGQUIT}},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := web{address: testkit.Address(t), workers: 1, args: []string{"--ignore-term"}, pool: "kill_timeout = \"300ms\"\ngraceful_timeout = \"10m\""}
			d := start(t, w)
			begun := time.Now()
			for i, sig := range test.sigs {
				d.Signal(sig)
				if i == 0 && len(test.sigs) > 1 {
					d.Await("a worker that drains", func(s api.Status) bool {
						k := s.Pools[0].Workers // one entry for the one worker
						return s.Master.State == "stopping" && len(k) == 1 && k[0].State == "draining"
					})
				}
			}
			d.Ended(0)
			if took := time.Since(begun); took > 20*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}

func TestSignalsScale(t *testing.T) {
	d := start(t, web{address: testkit.Address(t), workers: 1})
	d.Signal(syscall.SIGTTIN)
	d.Await("two workers", func(s api.Status) bool { return s.Pools[0].Ready == 2 && s.Pools[0].Desired == 2 })
	d.Signal(syscall.SIGTTOU)
	d.Await("one worker", func(s api.Status) bool { return s.Pools[0].Desired == 1 && len(s.Pools[0].Workers) == 1 })
	d.Signal(syscall.SIGTTOU)
	d.WaitLog("the pool keeps one worker")
	d.Signal(syscall.SIGUSR2)
	d.WaitLog("upgrade in place is not available")
	d.Stop()
}

func TestSignalsScaleTwoPools(t *testing.T) {
	w := web{address: testkit.Address(t), workers: 1}
	w.rest = "[pool.other]\ncommand = [\"" + testkit.Program(t, "cmd/worker") + "\", \"--listen\", \"" + testkit.Address(t) + "\"]\n"
	d := start(t, w)
	d.Signal(syscall.SIGTTIN)
	d.WaitLog("there is not just one pool")
	d.Stop()
}

// USR1: a file that was moved gets no more lines, and a new one is made.
func TestSignalUSR1(t *testing.T) {
	w := web{address: testkit.Address(t), workers: 1, pool: `output = "file:out-{slot}.log"`}
	d := start(t, w)
	read := func(name string) string { text, _ := os.ReadFile(d.Path(name)); return string(text) }
	testkit.Until(t, testkit.Patience, "the worker's first line", func() bool { return strings.Contains(read("out-0.log"), "listens on") })
	if err := os.Rename(d.Path("out-0.log"), d.Path("old.log")); err != nil {
		t.Fatal(err)
	}
	d.Signal(syscall.SIGUSR1)
	testkit.Until(t, testkit.Patience, "a new file", func() bool { _, err := os.Stat(d.Path("out-0.log")); return err == nil })
	d.Must("restart")
	testkit.Until(t, testkit.Patience, "the line of the next worker", func() bool { return strings.Contains(read("out-0.log"), "listens on") })
	if n := strings.Count(read("old.log"), "listens on"); n != 1 {
		t.Errorf("%d lines in the file that was moved", n)
	}
	d.Stop()
}
