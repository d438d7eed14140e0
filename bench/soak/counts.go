package main

import (
	"bufio"
	"net"
	"net/http"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/f72e338e/supervisord/internal/api"
	"github.com/f72e338e/supervisord/internal/testkit"
)

// counts holds connections open, stops one of eight workers, and counts.
func counts(t testkit.T, s scale) {
	const workers = 8
	address := testkit.Address(t)
	d := startDaemon(t, setup{address: address, pools: []pool{{name: "web", workers: workers}}})
	pids := testkit.PIDs(d.WaitSettled(), "web")
	want := map[int]int64{} // open connections by process
	for range pick(s, 80, 400) {
		want[holdOpen(t, address)]++
	}
	all := count(t, d, 10*time.Second)
	check(t, all, want, 0)

	victim := pids[3]
	if err := syscall.Kill(victim, syscall.SIGSTOP); err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() { _ = syscall.Kill(victim, syscall.SIGCONT) })
	for range pick(s, 1, 5) {
		const deadline = time.Second
		took, trips := statusWhile(t, d, func() { check(t, count(t, d, deadline), want, victim) })
		t.Logf("one of %d workers stopped: counted in %v; meanwhile %d status round trips, median %v, slowest %v", workers,
			took.Round(time.Millisecond), len(trips), trips[len(trips)/2], trips[len(trips)-1])
		if took < deadline || took > deadline+300*time.Millisecond {
			t.Errorf("counted in %v, want the deadline of %v", took, deadline)
		}
		if limit := 5 * time.Millisecond; !testkit.Race && trips[len(trips)/2] > limit {
			t.Errorf("status takes %v while counts are gathered", trips[len(trips)/2])
		}
		if trips[len(trips)-1] > deadline/4 {
			t.Errorf("a status took %v: the loop waited", trips[len(trips)-1])
		}
	}
	if out := d.Run("connections"); out.Code != 1 || !out.Has("web/3", "unknown", "1 of 8 workers are missing") {
		t.Errorf("%v", out)
	} else {
		t.Logf("%v", out)
	}
	if err := syscall.Kill(victim, syscall.SIGCONT); err != nil {
		t.Fatalf("%v", err)
	}
	check(t, count(t, d, 10*time.Second), want, 0)
	d.Stop()
}

// holdOpen opens a connection that stays, and returns the process that has it.
func holdOpen(t testkit.T, address string) int {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if _, err = c.Write([]byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n")); err != nil {
		t.Fatalf("%v", err)
	}
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatalf("%v", err)
	}
	_ = r.Body.Close()
	pid, err := strconv.Atoi(r.Header.Get("X-Worker"))
	if err != nil {
		t.Fatalf("%v", err)
	}
	return pid
}

func count(t testkit.T, d *testkit.Daemon, deadline time.Duration) api.Connections {
	t.Helper()
	n, err := d.Client().Connections(t.Context(), "web", deadline.Milliseconds())
	if err != nil {
		t.Fatalf("%v", err)
	}
	return n
}

// check compares counts with what is held; missing is the process that must not
// have answered, or 0.
func check(t testkit.T, got api.Connections, want map[int]int64, missing int) {
	t.Helper()
	var total int64
	for _, w := range got.Workers {
		if w.Connections == nil || *w.Connections != want[w.PID] || w.PID == missing {
			t.Errorf("worker %d (pid %d) counts %v, want %d", w.Worker, w.PID, w.Connections, want[w.PID])
			continue
		}
		total += *w.Connections
	}
	named := slices.ContainsFunc(got.Missing, func(w api.WorkerCount) bool { return w.PID == missing && w.Reason != "" })
	if absent := len(got.Missing); missing == 0 && absent != 0 || missing != 0 && (absent != 1 || !named) {
		t.Errorf("missing: %+v, want process %d", got.Missing, missing)
	}
	if got.Total != total || len(got.Workers)+len(got.Missing) != 8 {
		t.Errorf("total %d of %d workers, their sum is %d", got.Total, len(got.Workers), total)
	}
}

// statusWhile asks for the status, again and again, while fn runs. It returns how
// long that took, and the round trips sorted.
func statusWhile(t testkit.T, d *testkit.Daemon, fn func()) (time.Duration, []time.Duration) {
	t.Helper()
	client := d.Client()
	done, ready := make(chan struct{}), make(chan []time.Duration)
	go func() { // ends when fn has
		var trips []time.Duration
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			begun := time.Now()
			if _, err := client.Status(t.Context()); err != nil {
				t.Errorf("status: %v", err)
			}
			trips = append(trips, time.Since(begun))
			select {
			case <-tick.C:
			case <-done:
				ready <- trips
				return
			}
		}
	}()
	begun := time.Now()
	fn()
	took := time.Since(begun)
	close(done)
	trips := <-ready
	slices.Sort(trips)
	return took, trips
}
