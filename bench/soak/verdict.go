package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/f72e338e/supervisord/internal/testkit"
)

// batch is how many connections one hand-over brings at most.
const batch = 16

// trace is what one process wrote down about one connection.
type trace struct {
	pid            int
	accepted, read int // how often
	answered       bool
	line           string // that was read
}

// verdict is what became of every connection of a run.
type verdict struct {
	attempts   int
	blows      [kinds]int
	perKill    []int         // losses that nobody wrote down, by kill
	recorded   int           // lost, and written down by the worker that was killed
	unrecorded int           // lost, and not
	proved     int           // of these: the stopped worker had its descriptor, so it had accepted it
	others     int           // that a stopped worker had not accepted when it was killed, and another answered
	slowest    time.Duration // answer
	longest    time.Duration // wait for an answer, not counting the time for which a worker was stopped
	kinds      map[string]int
	faults     []string
}

func (v *verdict) fault(format string, args ...any) {
	v.faults = append(v.faults, fmt.Sprintf(format, args...))
}

// judge says what became of each attempt, given the blows in their order and what
// the workers wrote down, by attempt.
func judge(attempts []attempt, blows []blow, records map[uint32][]trace) *verdict {
	v := &verdict{attempts: len(attempts), kinds: map[string]int{}, perKill: make([]int, len(blows))}
	for _, b := range blows {
		v.blows[b.kind]++
	}
	byID := make(map[uint32]attempt, len(attempts))
	for _, a := range attempts {
		byID[a.id] = a
		v.kinds[a.ended]++
		traces := records[a.id]
		if len(traces) > 1 {
			v.fault("connection %d was served by two processes: %+v", a.id, traces)
		}
		for _, tr := range traces {
			if tr.accepted != 1 || tr.read > 1 || tr.read == 1 && tr.line != strconv.Itoa(int(a.id)) {
				v.fault("connection %d: strange records %+v", a.id, tr)
			}
		}
		if a.ended == answered {
			v.slowest = max(v.slowest, a.done-a.begun)
			v.longest = max(v.longest, waited(a, blows))
			if len(traces) != 1 || traces[0].pid != a.pid || traces[0].read != 1 {
				v.fault("connection %d was answered by %d, and the records say %+v", a.id, a.pid, traces)
			}
			continue
		}
		v.lost(a, traces, blows)
	}
	for id, traces := range records {
		if _, ok := byID[id]; !ok {
			v.fault("nobody made connection %d: %+v", id, traces)
		}
	}
	for _, b := range blows {
		for id := range b.held.others {
			switch a, ok := byID[id]; {
			case !ok:
				v.fault("nobody made connection %d, which was open", id)
			case a.ended != answered || a.pid == b.pid:
				v.fault("connection %d was not accepted by %d, which was stopped and killed: %s by %d %s", id, b.pid, a.ended, a.pid, a.text)
			default:
				v.others++
			}
		}
	}
	for i, n := range v.perKill {
		if n > batch {
			v.fault("%d connections were lost that %d had not written down: more than one hand-over", n, blows[i].pid)
		}
	}
	return v
}

// waited is how long an attempt took while no worker was stopped: whoever has it
// may be the one.
func waited(a attempt, blows []blow) time.Duration {
	d := a.done - a.begun
	for _, b := range blows {
		d -= max(0, min(a.done, b.freed)-max(a.begun, b.stopped))
	}
	return d
}

// lost judges an attempt that failed: a worker that was killed must have had it.
func (v *verdict) lost(a attempt, traces []trace, blows []blow) {
	if a.ended != reset && a.ended != eof {
		v.fault("connection %d: %s (%s)", a.id, a.ended, a.text)
		return
	}
	if len(traces) > 0 && traces[0].answered {
		v.fault("connection %d was lost (%s), and %d had answered it", a.id, a.ended, traces[0].pid)
		return
	}
	for i, b := range blows {
		if b.kind == stopBlow || a.done < b.at || a.done > b.until || len(traces) > 0 && traces[0].pid != b.pid {
			continue
		}
		if b.kind == stopAndKill {
			if !b.held.own[a.id] {
				v.fault("connection %d was lost (%s), and %d, which was stopped and killed, had not accepted it", a.id, a.ended, b.pid)
				return
			}
			if len(traces) == 0 {
				v.proved++
			}
		}
		if len(traces) > 0 {
			v.recorded++
		} else {
			v.unrecorded++
			v.perKill[i]++
		}
		return
	}
	v.fault("connection %d was lost (%s after %v), and no worker was killed that had it: records %+v", a.id, a.ended, a.done, traces)
}

// show prints the figures, and fails for what is wrong.
func (v *verdict) show(t testkit.T, policy string, workers, clients int, length time.Duration) {
	t.Helper()
	worst := 0
	for _, n := range v.perKill {
		worst = max(worst, n)
	}
	kills := v.blows[killBlow] + v.blows[stopAndKill]
	t.Logf("%s, %d workers, %d clients: %d connections in %v, %.0f/s, slowest answer %v, without the stops %v", policy, workers, clients,
		v.attempts, length.Round(time.Millisecond), float64(v.attempts)/length.Seconds(), v.slowest.Round(time.Millisecond), v.longest.Round(time.Millisecond))
	t.Logf("%d blows: %d killed, %d stopped and continued, %d stopped and then killed", kills+v.blows[stopBlow], v.blows[killBlow], v.blows[stopBlow], v.blows[stopAndKill])
	t.Logf("ended: %v", v.kinds)
	t.Logf("lost with a worker that had written down to have them: %d", v.recorded)
	t.Logf("lost with a worker that had not come to write them down: %d in %d kills, at most %d in one (bound %d); %d of them proved to be accepted",
		v.unrecorded, kills, worst, batch, v.proved)
	t.Logf("open and not accepted by a stopped worker when it was killed, and answered by another: %d", v.others)
	const most = 20
	for _, f := range v.faults[:min(most, len(v.faults))] {
		t.Errorf("%s", f)
	}
	if n := len(v.faults) - most; n > 0 {
		t.Errorf("and %d more", n)
	}
}

// readRecords reads the files of all recorders, by attempt.
func readRecords(t testkit.T, dir string) map[uint32][]trace {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatalf("%v", err)
	}
	all := map[uint32][]trace{}
	for _, name := range files {
		file, err := os.Open(name)
		if err != nil {
			t.Fatalf("%v", err)
		}
		own := map[uint32]*trace{}
		for lines := bufio.NewScanner(file); lines.Scan(); {
			if !addRecord(own, lines.Text()) {
				t.Errorf("%s: not a record: %q", name, lines.Text())
			}
		}
		_ = file.Close()
		for id, tr := range own {
			all[id] = append(all[id], *tr)
		}
	}
	return all
}

// addRecord adds one record of a process to what it wrote down.
func addRecord(to map[uint32]*trace, record string) bool {
	f := strings.Fields(record)
	if len(f) < 3 {
		return false
	}
	pid, err := strconv.Atoi(f[1])
	id, ok := idOf(f[2])
	if err != nil || !ok {
		return false
	}
	tr := to[id]
	if tr == nil {
		tr = &trace{pid: pid}
		to[id] = tr
	}
	switch {
	case f[0] == "A" && len(f) == 3:
		tr.accepted++
	case f[0] == "R" && len(f) == 4:
		tr.read++
		tr.line = f[3]
	case f[0] == "W" && len(f) == 4:
		tr.answered = true
	default:
		return false
	}
	return true
}
