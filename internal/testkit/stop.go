package testkit

import (
	"os"
	"strings"
	"syscall"
	"time"
)

// Signal sends a signal to the master.
func (d *Daemon) Signal(sig syscall.Signal) {
	d.t.Helper()
	if d.Exited() {
		d.t.Fatalf("%v cannot get %v: it has ended", d, sig)
	}
	if err := syscall.Kill(d.PID, sig); err != nil { // not reaped unless exited is closed, so the PID is its own
		d.t.Fatalf("%v: %v", sig, err)
	}
}

// Stop ends the master by SIGTERM and checks that it ended with exit code 0 and
// left no process behind.
func (d *Daemon) Stop() {
	d.t.Helper()
	d.Signal(syscall.SIGTERM)
	d.Ended(0)
}

// Ended waits for the end of the master, and checks its exit code and that no
// process of it is left.
func (d *Daemon) Ended(code int) {
	d.t.Helper()
	timer := time.NewTimer(2 * Patience)
	defer timer.Stop()
	select {
	case <-d.exited:
	case <-timer.C:
		d.t.Fatalf("%v did not end; children: %s", d, describe(Children(d.PID)))
	}
	if got := d.state.ExitCode(); got != code {
		d.t.Errorf("%v ended with exit code %d (%v), want %d", d, got, d.state, code)
	}
	if left := d.left(); len(left) > 0 {
		d.t.Errorf("%v has ended, and these live: %s", d, describe(left))
	}
	if _, err := os.Lstat(d.Socket); err == nil {
		d.t.Errorf("%v has ended, and its control socket is still there", d)
	}
	d.checkRaces()
}

// left returns the processes that bear the daemon's mark, itself excepted.
func (d *Daemon) left() []int {
	var list []int
	for _, pid := range WithVariable(d.mark()) {
		if pid != d.PID {
			list = append(list, pid)
		}
	}
	return list
}

func (d *Daemon) checkRaces() {
	for _, text := range []string{d.Log(), d.Output()} {
		if i := strings.Index(text, raceReport); i >= 0 {
			d.t.Errorf("a data race:\n%s", text[i:min(len(text), i+4000)])
		}
	}
}

// cleanUp ends what the test left, and shows the log if it failed.
func (d *Daemon) cleanUp() {
	d.t.Helper()
	defer d.remove() // also when Stop ends the test
	switch {
	case d.exited == nil || d.Exited():
	case d.t.Failed():
		d.killAll()
	default:
		d.Stop()
	}
}

func (d *Daemon) remove() {
	d.t.Helper()
	if d.exited != nil && !d.Exited() {
		d.killAll()
	}
	for _, pid := range d.left() {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	if d.t.Failed() && d.exited != nil {
		d.t.Logf("log of %v:\n%s\noutput of its workers:\n%s", d, tail(d.Log()), tail(d.Output()))
	}
	_ = os.RemoveAll(d.Dir)
}

// KillMaster kills the master alone, by SIGKILL, and waits for its end.
func (d *Daemon) KillMaster() {
	d.t.Helper()
	d.Signal(syscall.SIGKILL)
	<-d.exited
}

// killAll ends a daemon of a test that failed, and waits for it.
func (d *Daemon) killAll() {
	_ = syscall.Kill(d.PID, syscall.SIGKILL)
	<-d.exited
}

// tail returns the last part of a log.
func tail(s string) string {
	const most = 16 << 10
	if len(s) <= most {
		return s
	}
	s = s[len(s)-most:]
	return "...\n" + s[strings.IndexByte(s, '\n')+1:]
}
