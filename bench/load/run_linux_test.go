package load

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		os.Exit(dropsChild())
	}
	goleak.VerifyTestMain(m)
}

// do runs a plan to its end and checks what is true of every run; the queues of other packages' tests are not ours to judge.
func do(t *testing.T, p Plan) Result {
	t.Helper()
	files := openFiles(t)
	p.IgnoreDrops = true
	p.Late = orDefault(p.Late, 15*time.Second)
	p.Timeout = orDefault(p.Timeout, 20*time.Second)
	if p.Duration == 0 {
		p.Duration = time.Minute
	}
	r, err := Run(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range r.Groups {
		if g.Begun != g.Answered+g.Failures()-g.Unasked {
			t.Errorf("group %s does not add up: %+v", g.Name, g)
		}
	}
	// The servers of this process close their ends in their own time.
	for end := time.Now().Add(5 * time.Second); openFiles(t) > files; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d files were open before the run, %d after it", files, openFiles(t))
		}
	}
	return r
}

func openFiles(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

func noErr(t *testing.T, r Result) {
	t.Helper()
	if r.MaxLag > 15*time.Millisecond && r.Failures() == 0 {
		t.Logf("the machine paused for %v: the rate is not judged", r.MaxLag)
		return
	}
	if err := r.Err(); err != nil || !r.OK() || r.Failures() != 0 {
		t.Fatalf("not OK: %v", err)
	}
}

func TestMixed(t *testing.T) {
	addr := goServer(t)
	r := do(t, Plan{Duration: time.Second, Groups: []Group{
		{Name: "new", Target: addr, Rate: 200, Match: regexp.MustCompile(`^pool=web`)},
		{Name: "kept", Target: addr, Clients: 10, KeepAlive: true, Every: 50 * time.Millisecond},
	}})
	noErr(t, r)
	newer, kept := r.Groups[0], r.Groups[1]
	if newer.Due != 200 || kept.Due != 200 || r.Answered != r.Begun || r.Begun < 300 {
		t.Errorf("due %d and %d, want 200 each; answered %d of %d", newer.Due, kept.Due, r.Answered, r.Begun)
	}
	if newer.Connections != newer.Begun || kept.Connections != 10 {
		t.Errorf("connections %d and %d, want %d and 10", newer.Connections, kept.Connections, newer.Begun)
	}
	if r.PIDs[os.Getpid()] != r.Answered || len(r.PIDs) != 1 {
		t.Errorf("pids %v, want %d answers of %d", r.PIDs, r.Answered, os.Getpid())
	}
	if l := r.Latency; l.P50 <= 0 || l.P50 > l.P99 || l.P99 > l.Max {
		t.Errorf("latency %+v", l)
	}
	var b strings.Builder
	if err := r.WriteTable(&b); err != nil || !strings.Contains(b.String(), "OK: nothing lost") {
		t.Errorf("table: %v\n%s", err, b.String())
	}
}

func TestTargets(t *testing.T) {
	echo := func(p *peer) {
		for {
			line, err := p.in.ReadString('\n')
			if err != nil {
				return
			}
			p.send(line)
		}
	}
	path := filepath.Join(t.TempDir(), "s")
	serve(t, "unix", path, echo)
	name := fmt.Sprintf("@load-test-%d", os.Getpid())
	serve(t, "unix", name, echo)
	targets := []string{path, "unix:" + path, name, tcp(t, echo)}
	if l, err := net.Listen("tcp", "[::1]:0"); err == nil {
		l.Close()
		targets = append(targets, serve(t, "tcp", "[::1]:0", echo))
	}
	for _, target := range targets {
		for _, keep := range []bool{false, true} {
			r := do(t, Plan{Groups: []Group{{Target: target, Proto: Echo, Clients: 4, Count: 40, KeepAlive: keep}}})
			noErr(t, r)
			want := 40
			if keep {
				want = 4
			}
			if r.Answered != 40 || r.Connections != want {
				t.Errorf("%s: answered %d, %d connections, want 40 and %d", target, r.Answered, r.Connections, want)
			}
		}
	}
}

func TestBigAnswer(t *testing.T) {
	addr := goServer(t)
	check := func(b []byte) error {
		if len(b) != 300_000 {
			return errors.New("wrong length")
		}
		return nil
	}
	for _, keep := range []bool{false, true} {
		r := do(t, Plan{Groups: []Group{{Target: addr, Path: "/big", Clients: 2, Count: 10, KeepAlive: keep, Check: check}}})
		noErr(t, r)
	}
}

func TestRateNotReached(t *testing.T) {
	addr := goServer(t)
	r := do(t, Plan{Duration: 300 * time.Millisecond, MaxOpen: 1, Groups: []Group{{Name: "new", Target: addr, Path: "/?ms=10", Rate: 1000}}})
	if r.OK() || r.Failures() != 0 || !strings.Contains(r.Err().Error(), "rate not reached") {
		t.Fatalf("want only a rate that was not reached: %v", r.Err())
	}
	// The requests that begin late are charged from their scheduled time.
	if r.Latency.P50 < 50*time.Millisecond {
		t.Errorf("p50 %v: the wait for a connection is missing", r.Latency.P50)
	}

	r = do(t, Plan{Duration: 300 * time.Millisecond, Groups: []Group{{Target: addr, Path: "/?ms=50", Clients: 2, KeepAlive: true, Every: 5 * time.Millisecond}}})
	if r.OK() || !strings.Contains(r.Err().Error(), "rate not reached") {
		t.Fatalf("kept clients: %v", r.Err())
	}
}

func TestContextEndsRun(t *testing.T) {
	addr := goServer(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, err := Run(ctx, Plan{Duration: time.Hour, Late: 15 * time.Second, Timeout: 20 * time.Second, IgnoreDrops: true, Groups: []Group{{Target: addr, Rate: 200}},
		Progress: func(p Progress) {
			if p.Answered >= 20 {
				cancel()
			}
		}})
	if err != nil {
		t.Fatal(err)
	}
	noErr(t, r)
	if r.Answered < 20 || r.Elapsed > time.Minute {
		t.Errorf("answered %d in %v", r.Answered, r.Elapsed)
	}
}

func TestPlanRefused(t *testing.T) {
	ok := Group{Target: "127.0.0.1:1", Rate: 1}
	with := func(f func(*Group)) Plan {
		g := ok
		f(&g)
		return Plan{Duration: time.Second, Groups: []Group{g}}
	}
	for name, p := range map[string]Plan{
		"no duration":     {Groups: []Group{ok}},
		"long":            {Groups: []Group{ok}, Duration: 25 * time.Hour},
		"no group":        {Duration: time.Second},
		"elsewhere":       with(func(g *Group) { g.Target = "192.0.2.1:80" }),
		"elsewhere, v6":   with(func(g *Group) { g.Target = "[2001:db8::1]:80" }),
		"mapped":          with(func(g *Group) { g.Target = "[::ffff:192.0.2.1]:80" }),
		"wildcard":        with(func(g *Group) { g.Target = "0.0.0.0:80" }),
		"name":            with(func(g *Group) { g.Target = "localhost:80" }),
		"port 0":          with(func(g *Group) { g.Target = "127.0.0.1:0" }),
		"long path":       with(func(g *Group) { g.Target = "/" + strings.Repeat("x", 107) }),
		"rate + clients":  with(func(g *Group) { g.Clients = 1 }),
		"neither":         with(func(g *Group) { g.Rate = 0 }),
		"rate, kept":      with(func(g *Group) { g.KeepAlive = true }),
		"header in path":  with(func(g *Group) { g.Path = "/ HTTP/1.1\r\nX: y" }),
		"protocol":        with(func(g *Group) { g.Proto = "spdy" }),
		"too many":        with(func(g *Group) { g.Rate, g.Clients = 0, 20_000 }),
		"negative":        with(func(g *Group) { g.Count = -1 }),
		"negative period": with(func(g *Group) { g.Rate, g.Clients, g.Every = 0, 1, -1 }),
	} {
		if _, err := Run(t.Context(), p); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// Threads share the work, and their figures are added up.
func TestThreads(t *testing.T) {
	addr := goServer(t)
	res := do(t, Plan{Threads: 3, CPUOf: []int{os.Getpid()},
		Groups: []Group{{Name: "a", Target: addr, Clients: 7, Count: 100}, {Name: "b", Target: addr, Clients: 3, KeepAlive: true, Count: 50}}})
	if err := res.Err(); err != nil {
		t.Fatal(err)
	}
	if res.Answered != 150 || res.Groups[0].Answered != 100 || res.Groups[1].Answered != 50 || res.Groups[0].Name != "a" {
		t.Errorf("%d answered, groups %+v", res.Answered, res.Groups)
	}
	if _, there := res.CPU[os.Getpid()]; !there || res.ClientCPU <= 0 {
		t.Errorf("cpu %v, of the client %v", res.CPU, res.ClientCPU)
	}
	for threads, clients := range map[int]int{65: 100, 3: 2, -1: 5} {
		if _, err := Run(t.Context(), Plan{Duration: time.Second, Threads: threads, Groups: []Group{{Target: addr, Clients: clients}}}); err == nil {
			t.Errorf("%d threads for %d clients were accepted", threads, clients)
		}
	}
}
