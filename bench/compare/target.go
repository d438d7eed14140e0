package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

const module = "github.com/f72e338e/supervisord/"

// Names of targets that others are compared with.
const (
	plainGo  = "plain Go"
	plainGo1 = "plain Go, GOMAXPROCS=1"
	nodeRR   = "Node rr"

	nodeRROurs = "Node's workers, round_robin"

	inC       = "C dispatcher"
	inCMaster = "C dispatcher, master batch"
	inCBatch  = "C dispatcher, batch"
	sameInC   = "C, same scheduling" // one of the three, see server.likeInC
)

// target is one thing that is measured. It is started afresh for each case.
type target struct {
	name  string
	cases []string // only these; none: all
	start func(ctx context.Context, k *kit, dir string, workers int) (*server, error)
}

func (t target) takesPart(name string) bool {
	return len(t.cases) == 0 || slices.Contains(t.cases, name)
}

// targets returns all of them, ours first.
func targets() []target {
	var list []target
	for _, v := range variants {
		list = append(list, target{name: v.name, cases: v.cases, start: v.start})
	}
	return append(list, peers...)
}

// unavailable is the error of a target that this machine or this version of ours
// does not have: it is skipped, and the report says so.
type unavailable struct{ reason string }

func (u unavailable) Error() string { return "not available: " + u.reason }

// server is a target that runs.
type server struct {
	name      string
	address   string
	master    int   // 0: none
	workers   []int // processes
	processes []*process
}

// watch notes the processes of a master that forks its workers.
func (s *server) watch(p *process) {
	s.master, s.workers = p.pid(), p.children()
}

// all are the processes whose CPU time is the server's.
func (s *server) all() []int {
	if s.master == 0 {
		return s.workers
	}
	return append([]int{s.master}, s.workers...)
}

func (s *server) stop() {
	for _, p := range s.processes {
		p.stop()
	}
}

// batch reports who runs under SCHED_BATCH.
func (s *server) batch() (master, workers bool) {
	return s.master != 0 && runsBatch(s.master), len(s.workers) > 0 && runsBatch(s.workers[0])
}

// scheduling is that for the tables.
func (s *server) scheduling() string {
	master, workers := s.batch()
	switch {
	case master && workers:
		return "batch"
	case master:
		return "m-batch"
	case workers:
		return "w-batch"
	}
	return "other"
}

// processors is GOMAXPROCS in the environment of a worker, "-" when it is not there.
func (s *server) processors() string {
	found := "-"
	if len(s.workers) > 0 {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", s.workers[0]))
		for variable := range strings.SplitSeq(string(text), "\x00") {
			if n, ok := strings.CutPrefix(variable, "GOMAXPROCS="); ok {
				found = n
			}
		}
	}
	return found
}

// likeInC names the dispatcher in C that runs under the same scheduling, so that
// like is compared with like whatever the defaults of the daemon are.
func (s *server) likeInC() string {
	master, workers := s.batch()
	switch {
	case workers:
		return inCBatch
	case master:
		return inCMaster
	}
	return inC
}

// kit is what targets are started with.
type kit struct {
	dir      string // of this run; temporary
	programs string // where the programs are that were built
	next     int    // number of the next target's directory
	built    map[string]error
	launcher
}

// newKit makes a directory and builds the programs of ours into it. The caller
// removes it.
func newKit(ctx context.Context) (*kit, error) {
	dir, err := os.MkdirTemp("", "sd-cmp-") // short: a Unix path has at most 107 bytes
	if err != nil {
		return nil, err
	}
	k := &kit{dir: dir, programs: filepath.Join(dir, "bin"), built: map[string]error{}, launcher: newLauncher()}
	args := []string{"build", "-o", k.programs + "/"}
	for _, pkg := range []string{"cmd/supervisord", "cmd/worker", "bench/plain", "bench/compare/server"} {
		args = append(args, module+pkg)
	}
	if text, err := exec.CommandContext(ctx, "go", args...).CombinedOutput(); err != nil {
		k.remove()
		return nil, fmt.Errorf("cannot build the programs: %w: %s", err, lastLines(string(text)))
	}
	return k, nil
}

// remove ends the kit; all servers must have been stopped.
func (k *kit) remove() {
	close(k.launcher)
	_ = os.RemoveAll(k.dir)
}

// program is the path of one of ours, such as "cmd/supervisord".
func (k *kit) program(pkg string) string { return filepath.Join(k.programs, path.Base(pkg)) }

// run starts a target in a directory of its own.
func (k *kit) run(ctx context.Context, t target, workers int) (*server, error) {
	k.next++
	dir := filepath.Join(k.dir, strconv.Itoa(k.next))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	s, err := t.start(ctx, k, dir, workers)
	if err != nil {
		return nil, err
	}
	s.name = t.name
	if len(s.workers) != workers {
		s.stop()
		return nil, fmt.Errorf("%d workers, want %d", len(s.workers), workers)
	}
	return s, nil
}

// missing makes the error of a program that is not installed.
func missing(program string) error { return unavailable{"there is no " + program + " on PATH"} }

// isUnavailable returns the reason, if it is one.
func isUnavailable(err error) (string, bool) {
	var u unavailable
	ok := errors.As(err, &u)
	return u.reason, ok
}
