package main

import (
	"encoding/hex"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/f72e338e/supervisord/internal/testkit"
)

// held is who had which connections while a worker was stopped for good. The
// master keeps its copy of a connection until it has read that the worker accepted
// it, and a worker that is stopped accepts nothing: so the two are exact.
type held struct {
	own    map[uint32]bool // the worker alone has it: it had accepted it
	master map[uint32]bool // the master has it: nobody has accepted it
}

// lookAt compares the descriptors of the master with those of a worker that is
// stopped, until what both have does not change any more.
func lookAt(t testkit.T, master, worker int, port string) held {
	t.Helper()
	theirs := testkit.FDs(worker)
	peers := map[string]uint32{}
	look := func() (h held, both []string) {
		ours := testkit.FDs(master)
		readPeers(t, port, peers) // those that are looked for stay, so each is seen in one of the reads
		h = held{own: map[uint32]bool{}, master: map[uint32]bool{}}
		for socket, id := range peers {
			_, his := slices.BinarySearch(theirs, socket)
			_, mine := slices.BinarySearch(ours, socket)
			switch {
			case mine && his:
				both = append(both, socket)
				h.master[id] = true
			case mine:
				h.master[id] = true
			case his:
				h.own[id] = true
			}
		}
		slices.Sort(both)
		return h, both
	}
	var now held
	var before []string
	var last map[uint32]bool // what the master had at the last look
	testkit.Until(t, testkit.Patience, "the master to have read what the stopped worker had said", func() bool {
		h, both := look()
		same := last != nil && slices.Equal(before, both)
		now = held{own: h.own, master: map[uint32]bool{}}
		for id := range h.master {
			if last[id] { // the other workers' come and go
				now.master[id] = true
			}
		}
		before, last = both, h.master
		return same
	})
	return now
}

// readPeers adds the clients of the connections that were accepted on a port, by
// socket as testkit.FDs names it. proc(5), /proc/net/tcp
func readPeers(t testkit.T, port string, to map[string]uint32) {
	t.Helper()
	text, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		t.Fatalf("%v", err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatalf("%v", err)
	}
	local := fmt.Sprintf(":%04X", n)
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) < 10 || !strings.HasSuffix(f[1], local) || f[9] == "0" {
			continue
		}
		b, err := hex.DecodeString(f[2][:min(8, len(f[2]))])
		if err != nil || len(b) != 4 {
			continue
		}
		slices.Reverse(b) // as a little-endian number
		if id, ok := idOf(fmt.Sprintf("%d.%d.%d.%d", b[0], b[1], b[2], b[3])); ok {
			to["socket:["+f[9]+"]"] = id
		}
	}
}

// waitStopped waits until every thread of a process is stopped. What one of them
// was doing in the kernel is done then.
func waitStopped(t testkit.T, pid int) {
	t.Helper()
	testkit.Until(t, testkit.Patience, fmt.Sprintf("process %d to be stopped", pid), func() bool {
		tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		if err != nil {
			t.Fatalf("process %d is gone: %v", pid, err)
		}
		for _, task := range tasks {
			text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/stat", pid, task.Name()))
			s := string(text)
			if f := strings.Fields(s[strings.LastIndexByte(s, ')')+1:]); len(f) == 0 || f[0] != "T" {
				return false
			}
		}
		return true
	})
}
