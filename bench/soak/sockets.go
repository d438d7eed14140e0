package main

import (
	"maps"
	"net"
	"os/exec"
	"strings"
	"time"

	"github.com/f72e338e/supervisord/internal/api"
	"github.com/f72e338e/supervisord/internal/testkit"
)

// backlogs lets two pools ask for one address with backlogs of 5 and 500.
func backlogs(t testkit.T, _ scale) {
	address := testkit.Address(t)
	first := pool{name: "first", workers: 1, args: []string{"--listen", address, "--backlog", "5"}}
	second := pool{name: "second", workers: 2, args: []string{"--listen", address, "--backlog", "500"}}
	d := startDaemon(t, setup{pools: []pool{first}})
	d.Configure(setup{pools: []pool{first, second}}.toml(t))
	d.Must("reload")
	check := func(when string) {
		t.Helper()
		s := d.WaitSettled()
		if n := sendQueue(t, address); n != "" && n != "5" {
			t.Errorf("%s: ss -ltn shows a backlog of %s, want 5", when, n)
		}
		if len(s.Listeners) != 1 {
			t.Fatalf("%s: %d listeners, want one that both share: %+v", when, len(s.Listeners), s.Listeners)
		}
		l := s.Listeners[0]
		t.Logf("%s: ss shows %s; status: backlog %d, asked by %s, in vain %+v, holders %v", when, sendQueue(t, address), l.Backlog, l.AskedBy, l.Refused, l.Holders)
		if l.Backlog != 5 || !strings.HasPrefix(l.AskedBy, "first/0") || len(l.Holders) != 3 || len(l.Refused) == 0 ||
			l.Refused[0].Backlog != 500 || !strings.HasPrefix(l.Refused[0].AskedBy, "second/") {
			t.Errorf("%s: %+v", when, l)
		}
	}
	check("at first")
	d.Must("restart", "second")
	check("after a restart of the second pool")
	if out := d.Must("status"); !out.Has("5 (second/", "wanted 500)") {
		t.Errorf("%v", out)
	}
	d.Stop()
}

// sendQueue is what ss shows as the backlog of a listener; "" where there is no ss.
func sendQueue(t testkit.T, address string) string {
	t.Helper()
	ss, err := exec.LookPath("ss")
	if err != nil {
		t.Logf("not looked at with ss: %v", err)
		return ""
	}
	out, err := exec.Command(ss, "-ltnH").Output()
	if err != nil {
		t.Fatalf("ss -ltnH: %v", err)
	}
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); len(f) > 3 && f[3] == address {
			return f[2] // State Recv-Q Send-Q Local
		}
	}
	t.Fatalf("ss shows no listener on %s:\n%s", address, out)
	return ""
}

// exclusive: another pool asks for a socket that a slot has for itself, then the
// holder is restarted.
func exclusive(t testkit.T, s scale) {
	address := testkit.Address(t)
	holder := pool{name: "holder", workers: 1, args: []string{"--listen", address, "--exclusive"}}
	d := startDaemon(t, setup{pools: []pool{holder}})
	tr := startTraffic(t, address)
	for _, args := range [][]string{{"--listen", address, "--exclusive"}, {"--listen", address}} {
		asker := pool{name: "asker", workers: 1, args: args, settings: `restart = "never"`}
		d.Configure(setup{pools: []pool{holder, asker}}.toml(t))
		out := d.Run("reload")
		t.Logf("%v", out)
		if out.Code != 1 || !out.Has("pool asker, slot 0", "address already in use") {
			t.Errorf("want exit code 1 and the worker's own words")
		}
		d.Configure(setup{pools: []pool{holder}}.toml(t))
		d.Must("reload")
		d.Await("the end of the other pool", func(s api.Status) bool { return len(s.Pools) == 1 })
	}
	before := testkit.PIDs(d.Status(), "holder")
	for range pick(s, 3, 20) {
		d.Must("restart", "holder")
		now := testkit.PIDs(d.Status(), "holder")
		if maps.Equal(now, before) {
			t.Errorf("not replaced: %v", now)
		}
		tr.answeredBy(now)
		before = now
		tr.goOn(100 * time.Millisecond)
	}
	tr.clean()
	if l := d.WaitSettled().Listeners; len(l) != 1 || !l[0].Exclusive || len(l[0].Holders) != 1 {
		t.Errorf("listeners: %+v", l)
	}
	d.Stop()
	if c, err := net.Dial("tcp", address); err == nil {
		_ = c.Close()
		t.Errorf("%s is still served", address)
	}
}
