package main

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"time"

	"github.com/f72e338e/supervisord/internal/testkit"
)

// scenario is one thing that must hold.
type scenario struct {
	name  string
	about string
	run   func(testkit.T, scale)
}

var scenarios = []scenario{
	{"reload-restart-tcp", "reloads and restarts under load over TCP: nothing lost, no descriptor leaked", reloadRestartTCP},
	{"reload-restart-unix", "the same over a Unix socket", reloadRestartUnix},
	{"reload-restart-policies", "the same with another policy each time", reloadRestartPolicies},
	{"reload-node-round-robin", "reloads of plain Node servers that are handed connections, a new one for each request: nothing lost", reloadNodeRoundRobin},
	{"reload-node-shared", "the same where they accept themselves", reloadNodeShared},
	{"reload-asyncio", "the same for Python's asyncio, which takes its socket as from systemd", reloadAsyncio},
	{"reload-puma", "the same for puma", reloadPuma},
	{"reload-go-activation", "the same for a Go program that knows systemd and nothing of us", reloadGoActivation},
	{"kill-dispatched", "kill -9 of one of two workers that are handed connections: only what it had accepted is lost", killDispatched},
	{"torture-round-robin", "kill -9 and SIGSTOP of workers that are handed connections at full rate: nothing lost that was not accepted, nothing served twice", tortureRoundRobin},
	{"torture-least-connections", "the same with least_connections", tortureLeastConnections},
	{"torture-source-hash", "the same with source_hash", tortureSourceHash},
	{"kill-one-of-two", "kill -9 of one of two workers: only what it held is lost", killOneOfTwo},
	{"kill-the-only-one", "kill -9 of the only worker of a configured listener: the accept queue is kept", killOnlyConfigured},
	{"kill-the-only-asker", "kill -9 of the only worker that asked for a socket: the accept queue is kept", killOnlyRequested},
	{"reuse-port-steered", "a socket for each worker: pool resized, restarted and given other policies, nothing lost", reusePortSteered},
	{"reuse-port-hashed", "the same where eBPF is not allowed", reusePortHashed},
	{"kill-members", "kill -9 of a worker that has a socket of its own: only what it held is lost", killMembers},
	{"kill-master", "kill -9 of the master under every policy: the workers serve on, and the next master knows them", killMaster},
	{"kill-master-node", "the same for Node workers", killMasterNode},
	{"kill-master-systemd", "the same for workers that know LISTEN_FDS", killMasterSystemd},
	{"kill-master-rollout", "kill -9 of the master while it replaces workers: the roll-out is finished, or reverted", killMasterRollout},
	{"bad-rollout", "new workers that exit or are never ready: the old ones serve on", badRollout},
	{"bad-file", "a bad file, and an address in use: everything wrong is named, nothing changes", badFile},
	{"backlog", "two pools with two backlogs: the first counts, and status says so", backlogs},
	{"exclusive", "an exclusive socket: the second asker is refused, the successor gets it without a gap", exclusive},
	{"node-hostile", "a Node worker floods its channel, says what makes no sense, reads nothing, sends descriptors, speaks for others: the others' latency and the master stay as they are", nodeHostile},
	{"counts", "one of eight workers is stopped: seven exact counts, one named", counts},
	{"idle", "a master at rest is not woken", idle},
	{"baseline", "the shared policy costs nothing against the same server started by hand", baseline},
}

// comparisons are with what others do; only at full scale.
var comparisons = []scenario{
	{"pm2-reload", "the Node server under the load of reload-node-... while pm2 reloads it: what it loses is shown, not judged", pm2Reload},
}

// scale says how much is done.
type scale struct{ full bool }

// pick returns one of two numbers.
func pick[N any](s scale, short, full N) N {
	if s.full {
		return full
	}
	return short
}

func main() {
	full := flag.Bool("full", false, "the numbers of the acceptance list (minutes)")
	only := flag.String("run", "", "only scenarios that match this `regexp`")
	flag.Parse()
	match, err := regexp.Compile(*only)
	if err != nil || flag.NArg() > 0 {
		fmt.Fprintln(os.Stderr, "usage: soak [-full] [-run regexp]", err)
		os.Exit(2)
	}
	code := run(match, scale{full: *full})
	testkit.Clean()
	os.Exit(code)
}

func run(match *regexp.Regexp, s scale) int {
	var summary []string
	code := 0
	list := scenarios
	if s.full {
		list = slices.Concat(scenarios, comparisons)
	}
	for _, sc := range list {
		if !match.MatchString(sc.name) {
			continue
		}
		fmt.Printf("=== %s: %s\n", sc.name, sc.about)
		begun := time.Now()
		word := runScenario(sc.name, func(r *runner) { sc.run(r, s) })
		if word == "FAIL" {
			code = 1
		}
		line := fmt.Sprintf("%s  %-22s %v", word, sc.name, time.Since(begun).Round(100*time.Millisecond))
		fmt.Printf("--- %s\n\n", line)
		summary = append(summary, line)
	}
	for _, line := range summary {
		fmt.Println(line)
	}
	return code
}
