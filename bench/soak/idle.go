package main

import (
	"time"

	"github.com/f72e338e/supervisord/internal/testkit"
)

// idle measures a master whose eight workers have nothing to do. The race detector
// has threads and memory of its own, so this one is always built without.
func idle(t testkit.T, s scale) {
	const maxRSS = 20 << 20
	length := pick(s, 2*time.Second, 10*time.Second)
	d := testkit.NewWith(t, testkit.PlainProgram(t, "cmd/supervisord"))
	cfg := setup{address: testkit.Address(t), pools: []pool{{name: "web", workers: 8}}}
	d.Configure(cfg.with(testkit.PlainProgram(t, "cmd/worker")))
	d.Start()
	d.WaitSettled()
	d.HangUp() // else the server ends the idle control connection, which is work
	// What the start left to do, the collector's background work included, comes
	// first; so does, 10 s after the last command, the deadline of its connection,
	// which net/http sets for reading and the runtime forgets only when it is due.
	// Later there is one wake-up a minute: the runtime's monitor looks whether the
	// number of processors has changed. A master that is never at rest fails here.
	testkit.Until(t, 3*testkit.Patience, "a master at rest", func() bool {
		before := testkit.RestOf(d.PID)
		wait(pick(s, 500*time.Millisecond, 11*time.Second))
		return testkit.RestOf(d.PID).WakeUps == before.WakeUps
	})
	before := testkit.RestOf(d.PID)
	wait(length)
	after := testkit.RestOf(d.PID)
	t.Logf("%v at rest: %d CPU ticks, %d voluntary and %d involuntary context switches of %d threads, RSS %.1f MiB (peak %.1f MiB)", length,
		after.Ticks-before.Ticks, after.WakeUps-before.WakeUps, after.SwitchOut-before.SwitchOut, after.Threads,
		float64(after.RSS)/(1<<20), float64(after.PeakRSS)/(1<<20))
	if after.Ticks != before.Ticks {
		t.Errorf("%d CPU ticks", after.Ticks-before.Ticks)
	}
	for thread, n := range after.ByThread {
		if n != before.ByThread[thread] {
			t.Errorf("thread %s was woken %d times", thread, n-before.ByThread[thread])
		}
	}
	if after.RSS > maxRSS {
		t.Errorf("RSS %d, want below %d", after.RSS, maxRSS)
	}
	d.Stop()
}

// wait lets time pass: what is measured here is that nothing happens in it.
func wait(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	<-timer.C
}
