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

// held is who had which connections while a worker was stopped for good. What it had
// read of its channel it has a descriptor of, and a worker that is stopped reads
// nothing: so the two are exact.
type held struct {
	own    map[uint32]bool // it had accepted them
	others map[uint32]bool // it had not: another has them, or nobody yet
}

// lookAt tells what a worker that is stopped has accepted of the open connections.
func lookAt(t testkit.T, worker int, port string) held {
	t.Helper()
	theirs := testkit.FDs(worker)
	peers := map[string]uint32{}
	readPeers(t, port, peers)
	h := held{own: map[uint32]bool{}, others: map[uint32]bool{}}
	for socket, id := range peers {
		if _, his := slices.BinarySearch(theirs, socket); his {
			h.own[id] = true
		} else {
			h.others[id] = true
		}
	}
	return h
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
