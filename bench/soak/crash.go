package main

import (
	"fmt"
	"maps"
	"strings"
	"syscall"
	"time"

	"github.com/f72e338e/supervisord/bench/load"
	"github.com/f72e338e/supervisord/internal/api"
	"github.com/f72e338e/supervisord/internal/proto"
	"github.com/f72e338e/supervisord/internal/testkit"
)

// crashes is a daemon whose master is killed again and again.
type crashes struct {
	t      testkit.T
	d      *testkit.Daemon
	name   string // of what is tried, for messages
	cfg    setup
	policy string
	done   int // kills
	took   time.Duration
}

// killMaster kills the master under load and every policy: the workers stay, the next
// master knows them and their connections, and a reload works.
func killMaster(t testkit.T, s scale) {
	for _, policy := range proto.Policies {
		c := newCrashes(t, policy, setup{policy: policy, pools: []pool{{name: "web", workers: 2, settings: oneUptime}}})
		c.run(s, true)
	}
}

// killMasterNode is the same for Node workers, which say nothing twice.
func killMasterNode(t testkit.T, s scale) {
	node := search(t, "node")
	for _, policy := range []string{"shared", "round_robin", "least_connections", "source_hash"} {
		c := newCrashes(t, "node, "+policy, setup{policy: policy})
		c.cfg.pools = []pool{nodePool(t, c.d, node, c.cfg.address)}
		c.run(s, false)
	}
}

// killMasterSystemd is the same for workers that know LISTEN_FDS and nothing of us.
func killMasterSystemd(t testkit.T, s scale) {
	python := search(t, "/usr/bin/python3", "python3")
	c := newCrashes(t, "asyncio", setup{policy: "shared"})
	c.cfg.pools = []pool{{name: "web", workers: 2, program: python, args: []string{unpack(t, c.d, "server.py")}, settings: `protocol = "systemd"`}}
	c.run(s, false)
}

func newCrashes(t testkit.T, name string, cfg setup) *crashes {
	t.Helper()
	c := &crashes{t: t, d: testkit.New(t), name: name, cfg: cfg, policy: cfg.policy}
	c.cfg.address = testkit.Address(t)
	c.d.Keeper = true
	return c
}

func (c *crashes) configure() {
	program := testkit.Program(c.t, "cmd/worker")
	c.d.Configure(c.cfg.with(program))
}

// run kills the master many times under the usual load, with connections that are kept,
// or one of clients that open a connection for each request.
func (c *crashes) run(s scale, kept bool) {
	t := c.t
	c.configure()
	c.d.Start()
	before := testkit.PIDs(c.d.WaitSettled(), "web")
	var tr *traffic
	if kept {
		tr = startTraffic(t, c.cfg.address)
	} else {
		tr = startClients(t, c.cfg.address, pick(s, 8, 32))
	}
	times := pick(s, 3, 20)
	for range times {
		c.kill()
		if now := testkit.PIDs(c.d.Status(), "web"); !maps.Equal(now, before) {
			t.Errorf("%s: after crash %d the workers are %v, and were %v", c.name, c.done, now, before)
		}
		c.countsAreRight(kept)
		tr.goOn(200 * time.Millisecond)
	}
	c.cfg.pools[0].round++
	c.configure()
	c.d.Must("reload")
	after := testkit.PIDs(c.d.WaitSettled(), "web")
	for slot, pid := range after {
		if pid == before[slot] {
			t.Errorf("%s: after the reload slot %d still has process %d", c.name, slot, pid)
		}
	}
	tr.answeredBy(after)
	c.judge(tr.stop(), times)
	c.d.Stop()
}

// killMasterRollout kills the master while it replaces workers: the next one goes on.
func killMasterRollout(t testkit.T, s scale) {
	for _, kind := range []string{"shared", "round_robin", "reuse_port", "node", "systemd"} {
		policy := kind
		if kind == "node" || kind == "systemd" {
			policy = map[string]string{"node": "round_robin", "systemd": "shared"}[kind]
		}
		c := newCrashes(t, "roll-out, "+kind, setup{policy: policy, pools: []pool{{name: "web", workers: 4, settings: oneUptime}}})
		switch kind {
		case "node":
			c.cfg.pools = []pool{nodePool(t, c.d, search(t, "node"), c.cfg.address)}
		case "systemd":
			c.cfg.pools = []pool{{name: "web", workers: 2, program: search(t, "/usr/bin/python3", "python3"), args: []string{unpack(t, c.d, "server.py")}, settings: `protocol = "systemd"`}}
		}
		c.configure()
		c.d.Start()
		c.d.WaitSettled()
		var tr *traffic
		if c.cfg.pools[0].program == "" {
			tr = startTraffic(t, c.cfg.address)
		} else {
			tr = startClients(t, c.cfg.address, pick(s, 8, 32))
		}
		times, reverted := pick(s, 4, 20), 0
		for i := range times {
			before := c.d.WaitSettled().Pools[0].Generation
			c.d.Must("restart", "--no-wait")
			pause := 5 * time.Millisecond // early and late in the roll-out
			if c.cfg.pools[0].program != "" {
				pause *= 10 // these take longer to start
			}
			tr.goOn(time.Duration(i%8) * pause)
			c.kill()
			s := c.d.WaitSettled()
			if s.Pools[0].Generation == before {
				reverted++
			}
			for _, w := range s.Pools[0].Workers {
				if w.PID != nil && w.State == "ready" && w.Generation != s.Pools[0].Generation {
					t.Errorf("%s: after crash %d slot %d has generation %d, the pool %d: neither finished nor reverted", c.name, c.done, w.Slot, w.Generation, s.Pools[0].Generation)
				}
			}
			tr.answeredBy(testkit.PIDs(s, "web"))
		}
		c.judge(tr.stop(), times)
		t.Logf("%s: %d of %d were reverted", c.name, reverted, times)
		for line := range strings.Lines(c.d.Log()) { // why
			if strings.Contains(line, "rollout failed") || strings.Contains(line, "worker not") || strings.Contains(line, "started again: it") {
				t.Logf("%s", line)
			}
		}
		c.d.Stop()
	}
}

// kill kills the master, and waits for the next one to be complete.
func (c *crashes) kill() {
	c.t.Helper()
	pid := c.d.Status().Master.PID
	begun := time.Now()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		c.t.Fatalf("kill -9 %d: %v", pid, err)
	}
	c.done++
	c.d.Await("the next master", func(s api.Status) bool {
		return s.Master.PID != pid && s.Master.State == "running" && s.Master.Recoveries == c.done && s.Pools[0].Ready >= s.Pools[0].Desired
	})
	c.took = max(c.took, time.Since(begun))
}

// countsAreRight checks that the next master knows within a second how many connections
// there are. Those of the load that are kept are known; the others come and go.
func (c *crashes) countsAreRight(kept bool) {
	c.t.Helper()
	least, most := int64(0), int64(40)
	if kept {
		_, n := usualLoad()
		least, most = int64(n), int64(n)+20
	}
	last := int64(-1)
	if !testkit.Eventually(c.t, time.Second, func() bool {
		last = 0
		for _, w := range c.d.Status().Pools[0].Workers {
			if w.Connections == nil {
				last = -1
				return false
			}
			last += *w.Connections
		}
		return last >= least && last <= most
	}) {
		c.t.Errorf("%s: %d connections by the status, %d to %d are open", c.name, last, least, most)
	}
}

// judge: where the master is in the path of a connection it may take along, at each
// crash, one that it had accepted and not handed over.
func (c *crashes) judge(res load.Result, times int) {
	c.t.Helper()
	allowed := times
	if !proto.IsDispatched(c.policy) {
		allowed = 0
	}
	lost := 0
	for _, e := range res.Examples {
		if allowed == 0 || e.Reused || e.Kind != load.Reset && e.Kind != load.EOFBeforeAnswer {
			c.t.Errorf("%s: lost: %v", c.name, e)
		}
		lost++
	}
	if lost > allowed {
		c.t.Errorf("%s: %d connections lost in %d crashes", c.name, lost, times)
	}
	if err := res.Err(); lost == 0 && err != nil {
		c.t.Errorf("%s: %s", c.name, fmt.Sprintf("%.2000s", err))
	}
	c.t.Logf("%s: %d crashes of the master in %d requests, %d lost; the next one was complete after %v at most", c.name, times, res.Begun, lost,
		c.took.Round(time.Millisecond))
}
