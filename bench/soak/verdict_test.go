package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestSource: every attempt has an address of its own, which leads back to it.
func TestSource(t *testing.T) {
	for _, id := range []uint32{0, 1, 255, 256, 1 << 16, maxAttempts} {
		ip := source(id).String()
		if got, ok := idOf(ip + ":1234"); !ok || got != id || ip == "127.255.255.255" {
			t.Errorf("attempt %d comes from %s, which is %d, %v", id, ip, got, ok)
		}
	}
	for _, foreign := range []string{"127.0.0.1:80", "10.1.0.1:80", "[::1]:80", ""} {
		if id, ok := idOf(foreign); ok {
			t.Errorf("%q is attempt %d", foreign, id)
		}
	}
}

// TestJudge: a judge that finds nothing wrong is worth what it would have found.
func TestJudge(t *testing.T) {
	const ms = time.Millisecond
	killed := blow{kind: killBlow, pid: 10, at: 100 * ms, until: 200 * ms}
	stopped := blow{kind: stopBlow, pid: 11, at: 300 * ms, until: 400 * ms}
	both := blow{kind: stopAndKill, pid: 12, at: 500 * ms, until: 600 * ms,
		held: held{own: map[uint32]bool{1: true}, others: map[uint32]bool{2: true}}}
	lost := func(id uint32, at time.Duration) attempt { return attempt{id: id, ended: reset, done: at} }
	got := func(id uint32, pid int) attempt { return attempt{id: id, ended: answered, pid: pid} }
	wrote := func(pid int, line string) []trace {
		return []trace{{pid: pid, accepted: 1, read: 1, answered: true, line: line}}
	}
	only := func(pid int) []trace { return []trace{{pid: pid, accepted: 1}} }
	var many []attempt
	for id := range uint32(batch + 1) {
		many = append(many, lost(id, 110*ms))
	}
	for _, test := range []struct {
		name     string
		attempts []attempt
		records  map[uint32][]trace
		blows    []blow
		fault    string // "" = none
	}{
		{"answered", []attempt{got(1, 9)}, map[uint32][]trace{1: wrote(9, "1")}, nil, ""},
		{"answered by one, served by two", []attempt{got(1, 9)}, map[uint32][]trace{1: append(wrote(9, "1"), only(8)...)}, nil, "two processes"},
		{"answered by nobody who wrote it down", []attempt{got(1, 9)}, nil, nil, "the records say"},
		{"answered by another than who wrote it down", []attempt{got(1, 9)}, map[uint32][]trace{1: wrote(8, "1")}, nil, "the records say"},
		{"another's line", []attempt{got(1, 9)}, map[uint32][]trace{1: wrote(9, "2")}, nil, "strange records"},
		{"accepted twice by one", []attempt{got(1, 9)}, map[uint32][]trace{1: {{pid: 9, accepted: 2, read: 1, line: "1"}}}, nil, "strange records"},
		{"nobody's", nil, map[uint32][]trace{1: only(9)}, nil, "nobody made"},
		{"lost with the killed one", []attempt{lost(1, 110*ms)}, map[uint32][]trace{1: only(10)}, []blow{killed}, ""},
		{"lost with the killed one, not written down", []attempt{lost(1, 110*ms)}, nil, []blow{killed}, ""},
		{"more than a hand-over not written down", many, nil, []blow{killed}, "more than one hand-over"},
		{"lost before the kill", []attempt{lost(1, 90*ms)}, map[uint32][]trace{1: only(10)}, []blow{killed}, "no worker was killed"},
		{"lost after it", []attempt{lost(1, 210*ms)}, nil, []blow{killed}, "no worker was killed"},
		{"lost with another", []attempt{lost(1, 110*ms)}, map[uint32][]trace{1: only(9)}, []blow{killed}, "no worker was killed"},
		{"lost with one that was only stopped", []attempt{lost(1, 310*ms)}, map[uint32][]trace{1: only(11)}, []blow{killed, stopped}, "no worker was killed"},
		{"lost while one was only stopped", []attempt{lost(1, 310*ms)}, nil, []blow{killed, stopped}, "no worker was killed"},
		{"accepted by the stopped one, the other rescued", []attempt{lost(1, 510*ms), got(2, 9)}, map[uint32][]trace{2: wrote(9, "2")}, []blow{both}, ""},
		{"not accepted by the stopped one, and lost", []attempt{lost(2, 510*ms)}, nil, []blow{both}, "had not accepted it"},
		{"not accepted by the stopped one, and answered by it", []attempt{got(2, 12)}, map[uint32][]trace{2: wrote(12, "2")}, []blow{both}, "was not accepted by 12"},
		{"lost although it was answered", []attempt{lost(1, 110*ms)}, map[uint32][]trace{1: wrote(10, "1")}, []blow{killed}, "had answered it"},
		{"refused", []attempt{{id: 1, ended: refused, done: 110 * ms}}, nil, []blow{killed}, refused},
		{"timeout", []attempt{{id: 1, ended: timeout, done: 110 * ms}}, nil, []blow{killed}, timeout},
	} {
		v := judge(test.attempts, test.blows, test.records)
		all := strings.Join(v.faults, "\n")
		if (test.fault == "") != (all == "") || !strings.Contains(all, test.fault) {
			t.Errorf("%s: faults %q, want %q", test.name, all, test.fault)
		}
	}
}

func TestReadRecords(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"10": "A 10 127.1.0.1:5000\nA 10 127.1.0.2:5000\nR 10 127.1.0.1:5000 1\nW 10 127.1.0.1:5000 1\n",
		"11": "A 11 127.1.0.2:6000\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	all := readRecords(t, dir)
	if len(all[1]) != 1 || all[1][0] != (trace{pid: 10, accepted: 1, read: 1, answered: true, line: "1"}) || len(all[2]) != 2 {
		t.Errorf("%+v", all)
	}
	for _, bad := range []string{"", "A", "A 10 127.0.0.1:5", "B 10 127.1.0.1:5", "R 10 127.1.0.1:5", "A x 127.1.0.1:5"} {
		if addRecord(map[uint32]*trace{}, bad) {
			t.Errorf("%q was taken for a record", bad)
		}
	}
}
