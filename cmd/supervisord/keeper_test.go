package main

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/f72e338e/supervisord/internal/api"
	"github.com/f72e338e/supervisord/internal/testkit"
)

// kept is a daemon as users start it.
func kept(t *testing.T, w web) *testkit.Daemon {
	t.Helper()
	d := testkit.New(t)
	d.Keeper = true
	d.Configure(w.toml(t))
	d.Start()
	d.WaitSettled()
	return d
}

// TestKeeperKilled: the master serves on, says that something is missing, and can be
// stopped.
func TestKeeperKilled(t *testing.T) {
	t.Parallel()
	address := testkit.Address(t)
	d := kept(t, web{address: address, workers: 2})
	master := d.Status().Master.PID
	if master == d.PID {
		t.Fatal("the master is what was started")
	}
	d.KillMaster() // what was started
	d.Await("degraded", func(s api.Status) bool { return s.Master.Degraded != "" && s.Master.PID == master })
	expect(t, d.Run("status"), 0, "degraded: the keeper is gone")
	d.Must("restart")
	d.Must("stop")
	testkit.Until(t, 20*time.Second, "the end of the master", func() bool { return syscall.Kill(master, 0) != nil })
}

// TestCrashWhileStopping: the next master ends what the dead one had begun to end.
func TestCrashWhileStopping(t *testing.T) {
	t.Parallel()
	address := testkit.Address(t)
	d := kept(t, web{address: address, workers: 1})
	held := send(t, address, "GET /slow?ms=2000 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r")
	d.Await("an open connection", func(s api.Status) bool { n := s.Pools[0].Workers[0].Connections; return n != nil && *n == 1 })
	master := d.Status().Master.PID
	if err := syscall.Kill(d.PID, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	d.WaitLog("worker draining")
	if err := syscall.Kill(master, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 1000)
	n, err := held.Read(answer)
	if err != nil || !strings.HasPrefix(string(answer[:n]), "HTTP/1.1 200") {
		t.Errorf("the request was cut off: %q, %v", answer[:n], err)
	}
	d.Ended(0)
}

// TestNothingIsLeft: crashes leave no files, no descriptors and no processes behind.
func TestNothingIsLeft(t *testing.T) {
	t.Parallel()
	d := kept(t, web{address: testkit.Address(t), workers: 2})
	count := func(pid int) int { return len(testkit.FDs(pid)) }
	crash := func(n int) {
		old := d.Status().Master.PID
		if err := syscall.Kill(old, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		d.Await("the next master", func(s api.Status) bool {
			return s.Master.PID != old && s.Master.Recoveries == n && s.Pools[0].Ready == 2
		})
	}
	crash(1)
	keeper, master := count(d.PID), 0
	testkit.Until(t, 20*time.Second, "a master at rest", func() bool {
		last := master
		d.Status()
		master = count(d.Status().Master.PID)
		return master == last
	})
	for i := range 10 {
		crash(i + 2)
	}
	now := 0
	if !testkit.Eventually(t, 20*time.Second, func() bool {
		d.Status()
		now = count(d.Status().Master.PID)
		return now == master && count(d.PID) == keeper
	}) {
		t.Errorf("the master has %d descriptors, and had %d; the keeper %d and %d", now, master, count(d.PID), keeper)
	}
	children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", d.PID, d.PID))
	for _, pid := range strings.Fields(string(children)) {
		if text, _ := os.ReadFile("/proc/" + pid + "/stat"); strings.Contains(string(text), ") Z ") {
			t.Errorf("process %s was not waited for", pid)
		}
	}
	d.Stop()
}

// TestCrashWithBadFile: what is in force counts, whatever the file says by now, and a
// reload of a good one works.
func TestCrashWithBadFile(t *testing.T) {
	t.Parallel()
	w := web{address: testkit.Address(t), workers: 2}
	d := kept(t, w)
	before := testkit.PIDs(d.Status(), "web")
	for i, spoil := range []func(){
		func() { d.Configure("nonsense = [") },
		func() { _ = os.Remove(d.File) },
	} {
		spoil()
		old := d.Status().Master.PID
		if err := syscall.Kill(old, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		s := d.Await("the next master", func(s api.Status) bool {
			return s.Master.PID != old && s.Master.Recoveries == i+1 && s.Pools[0].Ready == 2
		})
		if now := testkit.PIDs(s, "web"); now[0] != before[0] || now[1] != before[1] || s.Master.Config != d.File {
			t.Errorf("workers %v, before %v; configuration %q", now, before, s.Master.Config)
		}
		d.WaitLog("the one that is in force is used")
		if res := d.Run("reload"); res.Code == 0 {
			t.Error("a bad file was loaded")
		}
	}
	w.workers = 3
	d.Configure(w.toml(t))
	d.Must("reload")
	if n := len(testkit.PIDs(d.WaitSettled(), "web")); n != 3 {
		t.Errorf("%d workers", n)
	}
	d.Stop()
}
