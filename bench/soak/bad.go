package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"os"
	"strings"
	"time"

	"github.com/f72e338e/supervisord/internal/api"
	"github.com/f72e338e/supervisord/internal/testkit"
)

// badRollout reloads with workers that fail, under load.
func badRollout(t testkit.T, s scale) {
	address := testkit.Address(t)
	good := setup{address: address, pools: []pool{{name: "web", workers: 2, settings: `start_timeout = "2s"`}}}
	d := startDaemon(t, good)
	before := testkit.PIDs(d.WaitSettled(), "web")
	open := testkit.FDs(d.PID)
	tr := startTraffic(t, address)
	for range pick(s, 1, 5) {
		for _, test := range []struct {
			args   []string
			within time.Duration
			says   []string
		}{
			{[]string{"--exit-after", "0s"}, 5 * time.Second,
				[]string{"pool web, slot", "exited with code 1", "last lines of worker", "because --exit-after says so", "rolled back"}},
			{[]string{"--never-ready"}, 12 * time.Second,
				[]string{"pool web, slot", "not ready within 2s", "last lines of worker", "listens on tcp " + address, "rolled back"}},
		} {
			bad := good
			bad.pools = []pool{good.pools[0]}
			bad.pools[0].args = test.args
			d.Configure(bad.toml(t))
			out := d.Run("reload").Within(t, test.within)
			t.Logf("%v", out)
			if out.Code != 1 || !out.Has(test.says...) {
				t.Errorf("want exit code 1 and %q", test.says)
			}
			if now := testkit.PIDs(d.Status(), "web"); !maps.Equal(now, before) {
				t.Errorf("workers %v, before the reload %v", now, before)
			}
			tr.goOn(500 * time.Millisecond)
		}
	}
	d.Configure(good.toml(t))
	if out := d.Run("reload"); out.Code != 0 || !maps.Equal(testkit.PIDs(d.Status(), "web"), before) {
		t.Errorf("a reload of what runs should change nothing: %v", out)
	}
	tr.clean()
	d.WaitSettled()
	sameFDs(t, d, open)
	d.Stop()
}

// badFile reloads files that are wrong, under load.
func badFile(t testkit.T, s scale) {
	address := testkit.Address(t)
	good := setup{address: address, pools: []pool{{name: "web", workers: 2}}}
	d := startDaemon(t, good)
	d.WaitSettled()
	tr := startTraffic(t, address)
	before := stable(t, d.Status())
	unchanged := func() {
		t.Helper()
		if now := stable(t, d.Status()); now != before {
			t.Errorf("the status changed:\n%s\nbefore:\n%s", now, before)
		}
	}
	for range pick(s, 1, 5) {
		d.Configure(good.toml(t) + "[listener.bad]\naddress = \"127.0.0.1:80800\"\npolcy = \"shared\"\n\n" +
			"[pool.bad]\ncommand = []\nworkers = \"many\"\ngraceful_timeout = 30\nlisteners = [\"wbe\"]\n")
		out := d.Run("reload")
		t.Logf("%v", out)
		text, _ := os.ReadFile(d.File)
		for n, line := range strings.Split(string(text), "\n") {
			for _, wrong := range []string{"80800", "polcy", "command = []", "many", "graceful_timeout", "wbe"} {
				if at := fmt.Sprintf("%s:%d: ", d.File, n+1); strings.Contains(line, wrong) && !strings.Contains(out.Stderr, at) {
					t.Errorf("no error for %q at %s", line, at)
				}
			}
		}
		if out.Code != 3 {
			t.Errorf("exit code %d, want 3", out.Code)
		}
		unchanged()
		portInUse(t, d, good)
		unchanged()
		tr.goOn(500 * time.Millisecond)
	}
	d.Configure(good.toml(t))
	d.Must("reload")
	unchanged()
	tr.clean()
	d.Stop()
}

// portInUse reloads with a listener on an address that this process has.
func portInUse(t testkit.T, d *testkit.Daemon, good setup) {
	t.Helper()
	taken, err := net.Listen("tcp", testkit.Address(t))
	if err != nil {
		t.Fatalf("%v", err)
	}
	defer func() { _ = taken.Close() }()
	free := testkit.Address(t)
	good.rest = fmt.Sprintf("[listener.free]\naddress = %q\n[listener.taken]\naddress = %q\n", free, taken.Addr())
	good.pools = []pool{good.pools[0]}
	good.pools[0].round = 1
	d.Configure(strings.Replace(good.toml(t), `listeners = ["web"]`, `listeners = ["web", "free", "taken"]`, 1))
	out := d.Run("reload")
	t.Logf("%v", out)
	holder := fmt.Sprintf("(pid %d)", os.Getpid())
	if out.Code != 1 || !out.Has("cannot bind tcp "+taken.Addr().String(), "address already in use", "held by ", holder) {
		t.Errorf("want exit code 1, the address, the errno's text and the holder %s", holder)
	}
	if l, err := net.Listen("tcp", free); err != nil { // all or nothing
		t.Errorf("the listener that could be bound was kept: %v", err)
	} else {
		_ = l.Close()
	}
}

// stable writes what of a status does not change by itself.
func stable(t testkit.T, s api.Status) string {
	t.Helper()
	s.Master.UptimeSeconds = 0
	for i := range s.Listeners {
		s.Listeners[i].Queued = nil
	}
	for i := range s.Pools {
		for j := range s.Pools[i].Workers {
			w := &s.Pools[i].Workers[j]
			w.Connections, w.Accepted, w.UptimeSeconds, w.RSSBytes, w.CPUSeconds = nil, nil, nil, nil, nil
		}
	}
	text, err := json.MarshalIndent(s, "", " ")
	if err != nil {
		t.Fatalf("%v", err)
	}
	return string(text)
}
