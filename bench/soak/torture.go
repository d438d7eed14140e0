package main

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/f72e338e/supervisord/bench/load"
	"github.com/f72e338e/supervisord/internal/api"
	"github.com/f72e338e/supervisord/internal/testkit"
)

func tortureRoundRobin(t testkit.T, s scale)       { torture(t, s, "round_robin", 2) }
func tortureLeastConnections(t testkit.T, s scale) { torture(t, s, "least_connections", 3) }
func tortureSourceHash(t testkit.T, s scale)       { torture(t, s, "source_hash", 4) }

// The kinds of blows, in the order in which they come.
const (
	killBlow = iota
	stopBlow
	stopAndKill
	kinds
)

// blow is what was done to one worker. Times are those of the crowd's clock.
type blow struct {
	kind  int
	pid   int
	at    time.Duration // of the kill -9 or the SIGSTOP
	until time.Duration // the pool was complete again, and everybody had answered
	held  held          // stopAndKill: who had what

	stopped, freed time.Duration // from when to when it was stopped
}

// atOnce lets a worker that is killed right after its start be replaced soon, as
// often as it takes.
const atOnce = "min_uptime = \"1ms\"\nrestart_delay = \"10ms\"\nrestart_max_delay = \"50ms\"\nmax_restarts = 1000000\n"

// torture kills and stops workers while connections are handed to them as fast as
// they take them, and judges from the records of the workers and of the clients
// what became of every single connection.
func torture(t testkit.T, s scale, policy string, workers int) {
	const clients = 32
	address := testkit.Address(t)
	cfg := setup{address: address, policy: policy}
	d := testkit.New(t)
	records := d.Path("records")
	if err := os.Mkdir(records, 0o700); err != nil {
		t.Fatalf("%v", err)
	}
	cfg.pools = []pool{{name: "web", workers: workers, args: []string{records}, settings: atOnce}}
	d.Configure(cfg.with(testkit.Program(t, "bench/soak/recorder")))
	d.Start()
	d.WaitSettled()
	open := testkit.FDs(d.PID)
	drops := readDrops(t)

	c := startCrowd(t.Context(), address, clients)
	t.Cleanup(func() { c.end() })
	x := executioner{t: t, d: d, c: c, workers: workers}
	x.everybodyAnswers()
	for i := range pick(s, 9, 50) {
		x.goOn(50 + rand.Int64N(500))
		x.strike(i % kinds)
	}
	x.goOn(500)
	length := c.now()
	attempts := c.end()

	v := judge(attempts, x.blows, readRecords(t, records))
	v.show(t, policy, workers, clients, length)
	if now := readDrops(t); now != drops {
		t.Errorf("a listen queue overflowed: %+v, before %+v", now, drops)
	}
	d.WaitSettled()
	sameFDs(t, d, open)
	d.Stop()
}

// executioner deals the blows.
type executioner struct {
	t       testkit.T
	d       *testkit.Daemon
	c       *crowd
	workers int
	blows   []blow
}

// strike deals one blow, and waits until the pool is complete and each worker has
// answered after it.
func (x *executioner) strike(kind int) {
	t := x.t
	t.Helper()
	pids := testkit.PIDs(x.d.Status(), "web")
	b := blow{kind: kind, pid: pids[rand.IntN(x.workers)]}
	if kind != killBlow {
		x.signal(b.pid, syscall.SIGSTOP)
		b.at, b.stopped = x.c.now(), x.c.now()
		waitStopped(t, b.pid)
		wait(5*time.Millisecond + rand.N(295*time.Millisecond))
	}
	if kind == stopAndKill {
		_, port, _ := net.SplitHostPort(x.c.target)
		b.held = lookAt(t, b.pid, port)
	}
	if kind != killBlow {
		b.freed = x.c.now()
	}
	if kind == stopBlow {
		x.signal(b.pid, syscall.SIGCONT)
	} else {
		b.at = x.c.now()
		x.signal(b.pid, syscall.SIGKILL)
		x.d.Await("a successor", func(s api.Status) bool {
			now := testkit.PIDs(s, "web")
			for _, pid := range now {
				if pid == b.pid {
					return false
				}
			}
			return len(now) == x.workers
		})
	}
	x.everybodyAnswers()
	b.until = x.c.now()
	x.blows = append(x.blows, b)
}

func (x *executioner) signal(pid int, sig syscall.Signal) {
	x.t.Helper()
	if err := syscall.Kill(pid, sig); err != nil {
		x.t.Fatalf("%v for %d: %v", sig, pid, err)
	}
}

// everybodyAnswers waits until each worker has answered once more.
func (x *executioner) everybodyAnswers() {
	x.t.Helper()
	before := map[int]int64{}
	for _, pid := range testkit.PIDs(x.d.Status(), "web") {
		before[pid] = x.c.answeredBy(pid)
	}
	testkit.Until(x.t, testkit.Patience, fmt.Sprintf("an answer of each of %v", before), func() bool {
		for pid, n := range before {
			if x.c.answeredBy(pid) == n {
				return false
			}
		}
		return true
	})
}

// goOn waits until so many more connections have ended.
func (x *executioner) goOn(n int64) {
	x.t.Helper()
	n += x.c.count.Load()
	testkit.Until(x.t, testkit.Patience, "more answers", func() bool { return x.c.count.Load() >= n })
}

func readDrops(t testkit.T) load.Drops {
	t.Helper()
	drops, err := load.ReadDrops()
	if err != nil {
		t.Fatalf("%v", err)
	}
	return drops
}
