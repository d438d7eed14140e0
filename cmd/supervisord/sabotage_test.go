package main

import (
	"fmt"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/f72e338e/supervisord/bench/load"
	"github.com/f72e338e/supervisord/internal/api"
	"github.com/f72e338e/supervisord/internal/testkit"
)

// sabotaged runs a daemon with two pools on one listener: good workers, and one that
// harms the socket. It returns where to connect.
func sabotaged(t *testing.T, listener string, good int, deed ...string) (d *testkit.Daemon, address string) {
	t.Helper()
	d = testkit.New(t)
	toml := "[listener.web]\n" + strings.ReplaceAll(listener, "DIR", d.Dir) + "\n"
	pool := func(name string, workers int, command ...string) {
		toml += fmt.Sprintf("[pool.%s]\ncommand = [\"%s\"]\nworkers = %d\nlisteners = [\"web\"]\n[pool.%s.rollout]\nmonitor = \"0s\"\n",
			name, strings.Join(command, `", "`), workers, name)
	}
	pool("bad", 1, append([]string{testkit.Program(t, "cmd/supervisord/testdata/saboteur")}, deed...)...)
	if good > 0 {
		pool("good", good, testkit.Program(t, "cmd/worker"))
	}
	d.Configure(toml)
	d.Start()
	l := d.Status().Listeners[0]
	if l.Network == "unix" {
		return d, "unix:" + l.Address
	}
	return d, l.Address
}

// harmIt lets the saboteur do it, and returns its number.
func harmIt(t *testing.T, d *testkit.Daemon) uint64 {
	t.Helper()
	s := d.Status()
	pid := testkit.PIDs(s, "bad")[0]
	if pid == 0 {
		t.Fatal("there is no saboteur")
	}
	if err := syscall.Kill(pid, syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	for _, p := range s.Pools {
		if p.Name == "bad" {
			return p.Workers[0].ID
		}
	}
	return 0
}

// serves waits until the address answers, a new connection each time.
func serves(t *testing.T, address string) {
	t.Helper()
	testkit.Until(t, testkit.Patience, "an answer at "+address, func() bool {
		res, err := load.Run(t.Context(), load.Plan{Duration: 100 * time.Millisecond, IgnoreDrops: true,
			Groups: []load.Group{{Name: "after", Target: address, Rate: 100}}})
		return err == nil && res.Failures() == 0
	})
}

func logLines(d *testkit.Daemon, text string) (lines []string) {
	for line := range strings.Lines(d.Log()) {
		if strings.Contains(line, text) {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

// TestSabotage: a worker shuts the socket down that it shares with others. The
// master notices at once and mends it. Clients lose what was in the accept queue,
// and what comes in the moment between.
func TestSabotage(t *testing.T) {
	port := func() string { return fmt.Sprintf("address = %q\n", testkit.Address(t)) }
	const port0, reusePort, path = "address = \"127.0.0.1:0\"\n", "policy = \"reuse_port\"\n", "address = \"unix:DIR/s\"\n"
	for _, c := range []struct {
		name, listener, deed string
		anew                 bool
	}{
		{"port", port(), "shut-rdwr", false},
		{"port, for reading", port(), "shut-rd", false},
		{"port 0", port0, "shut-rdwr", false},
		{"reuse_port", port() + reusePort, "shut-rdwr", false},
		{"reuse_port 0", port0 + reusePort, "shut-rdwr", false},
		{"path", path, "shut-rdwr", true},
		{"path, for reading", path, "shut-rd", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, address := sabotaged(t, c.listener, 3, c.deed)
			ended, flows := make(chan load.Result, 1), make(chan struct{})
			var once sync.Once
			go func() {
				progress := func(p load.Progress) {
					if p.Answered >= 100 {
						once.Do(func() { close(flows) })
					}
				}
				res, _ := load.Run(t.Context(), load.Plan{Duration: 2 * time.Second, IgnoreDrops: true, Progress: progress, Groups: []load.Group{{Name: "new", Target: address, Rate: 200}}})
				ended <- res
			}()
			<-flows // in the middle of the load
			bad := harmIt(t, d)
			d.WaitLog("handle mended")
			if c.anew {
				d.WaitLog("rollout done: pool=good")
				d.WaitLog("rollout done: pool=bad")
			}
			res := <-ended
			serves(t, address)
			harmed, mended := logLines(d, "handle harmed"), logLines(d, "handle mended")
			if len(harmed) != 1 || len(mended) != 1 || !regexp.MustCompile(fmt.Sprintf(`shut down by .*worker.* %d[ ",]`, bad)).MatchString(harmed[0]) {
				t.Errorf("want one line that names worker %d, and one that says mended:\n%s\n%s", bad, harmed, mended)
			}
			if n := res.Failures(); n > 40 || res.Failed[load.Refused]+res.Failed[load.Reset] < n {
				t.Errorf("%v", res.Err())
			}
			t.Logf("%d of %d connections failed %v, slowest answer %v; %d workers ended by it\n%s\n%s\n%s", res.Failures(), res.Begun, res.Failed,
				res.Latency.Max, len(logLines(d, "worker failed")), strings.Join(harmed, "\n"), strings.Join(mended, "\n"),
				regexp.MustCompile("mended after .*").FindString(d.Output()))
			d.Run("stop")
			d.Ended(0)
		})
	}
}

// TestSabotageFoundLater: what the kernel tells nobody is found when a worker becomes
// ready, at the latest when somebody asks for the status, told once and put back.
func TestSabotageFoundLater(t *testing.T) {
	port := func() string { return fmt.Sprintf("address = %q\n", testkit.Address(t)) }
	const reusePort, path = "policy = \"reuse_port\"\n", "address = \"unix:DIR/s\"\n"
	for _, c := range []struct{ name, listener, deed, what, mended string }{
		{"backlog", port(), "backlog", "backlog changed from 511 to 7", ""},
		{"backlog of a member", port() + reusePort, "backlog", "backlog changed from 511 to 7", ""},
		{"blocking", port(), "blocking", "made blocking", ""},
		{"blocking member", port() + reusePort, "blocking", "made blocking", ""},
		{"blocking path", path, "blocking", "made blocking", ""},
		{"signals", port(), "signals", "made to send signals", ""},
		{"moved", "address = \"127.0.0.1:0\"\n", "move", "", "on the same socket"},
		{"connected elsewhere", port(), "connect", "", "on the same socket"},
	} {
		for _, atStart := range []bool{true, false} {
			deed := []string{c.deed}
			name := c.name + " later"
			if atStart {
				deed, name = append(deed, "at-start"), c.name+" at a start"
			}
			if atStart && c.mended != "" {
				continue // the kernel tells of it as a rule
			}
			t.Run(name, func(t *testing.T) {
				d, address := sabotaged(t, c.listener, 2, deed...)
				serves(t, address)
				if atStart { // another one
					d.Must("restart", "bad")
				} else {
					harmIt(t, d)
				}
				d.Await("the discovery", func(api.Status) bool { return len(logLines(d, "handle harmed")) > 0 })
				if c.mended != "" {
					d.WaitLog(c.mended)
				}
				serves(t, address)
				d.WaitSettled()
				d.Must("status")
				lines := logLines(d, "handle harmed")
				switch {
				case c.mended != "":
				case atStart:
					// The first worker may have done it beside others that started.
					if !strings.Contains(lines[len(lines)-1], c.what) || !strings.Contains(lines[len(lines)-1], "pool=bad") {
						t.Errorf("the saboteur is not named: %s", strings.Join(lines, "\n"))
					}
				case len(lines) != 1 || !strings.Contains(lines[0], c.what):
					t.Errorf("want one line: %s\n%s", c.what, strings.Join(lines, "\n"))
				}
				d.Run("stop")
				d.Ended(0)
			})
		}
	}
}

// TestSabotageForEver: a worker that goes on and on, or does it at each start, keeps
// neither the master busy nor the log.
func TestSabotageForEver(t *testing.T) {
	for _, c := range []struct {
		name, listener string
		deed           []string
	}{
		{"port", fmt.Sprintf("address = %q\n", testkit.Address(t)), []string{"shut-for-ever"}},
		{"reuse_port", fmt.Sprintf("address = %q\npolicy = \"reuse_port\"\n", testkit.Address(t)), []string{"shut-for-ever"}},
		{"path", "address = \"unix:DIR/s\"\n", []string{"shut-for-ever"}},
		{"path, at each start", "address = \"unix:DIR/s\"\n", []string{"shut-rdwr", "at-start"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, address := sabotaged(t, c.listener, 2, c.deed...)
			if len(c.deed) == 1 {
				harmIt(t, d)
			}
			for end := time.Now().Add(2500 * time.Millisecond); time.Now().Before(end); {
				d.Run("status").Within(t, 2*time.Second)
			}
			if n := len(logLines(d, "handle harmed")) + len(logLines(d, "handle mended")); n == 0 || n > 40 {
				t.Errorf("%d lines about it", n)
			}
			if n := len(logLines(d, "rollout started: pool=good")); n > 4 {
				t.Errorf("%d roll-outs", n)
			}
			if len(c.deed) == 1 {
				serves(t, address)
			}
			d.Run("stop")
			d.Ended(0)
		})
	}
}
