package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/f72e338e/supervisord/internal/api"
	"github.com/f72e338e/supervisord/internal/testkit"
)

// TestNodeBalance: under least_connections a Node worker's closed connections count, of
// which it tells nobody.
func TestNodeBalance(t *testing.T) {
	t.Parallel()
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("needs node")
	}
	d := testkit.New(t)
	address, program := testkit.Address(t), d.Path("server.js")
	_, port, _ := net.SplitHostPort(address)
	script := fmt.Sprintf("require('net').createServer((c) => { c.on('error', () => {}); c.write(process.pid + '\\n') }).listen(%s, '127.0.0.1')\n", port)
	if err := os.WriteFile(program, []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	d.Configure(fmt.Sprintf("[listener.web]\naddress = %q\npolicy = \"least_connections\"\n[pool.web]\ncommand = [%q, %q]\nprotocol = \"node\"\nlisteners = [\"web\"]\nworkers = 2\n[pool.web.rollout]\nmonitor = \"0s\"\n",
		address, node, program))
	d.Start()
	d.WaitSettled()

	held := map[int][]net.Conn{}
	hold := func(n int) {
		for range n {
			c, err := net.Dial("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = c.Close() })
			line, err := bufio.NewReader(c).ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			pid, _ := strconv.Atoi(strings.TrimSpace(line))
			held[pid] = append(held[pid], c)
		}
	}
	hold(20)
	var pids [2]int // one that keeps its connections, one whose clients leave
	for slot, pid := range testkit.PIDs(d.Status(), "web") {
		pids[slot] = pid
	}
	for _, c := range held[pids[1]] {
		_ = c.Close()
	}
	held[pids[1]] = nil
	most := len(held[pids[0]])
	d.Await("the kernel's counts", func(s api.Status) bool {
		w := s.Pools[0].Workers
		return w[0].Connections != nil && *w[0].Connections == int64(most) && w[1].Connections != nil && *w[1].Connections == 0
	})
	hold(8)
	if n := len(held[pids[1]]); n < 7 { // one may come before the one before it was acknowledged
		t.Errorf("of 8 connections %d went to the worker that had none, the other had %d", n, most)
	}
	for _, c := range held[pids[0]] {
		_ = c.Close()
	}
	for _, c := range held[pids[1]] {
		_ = c.Close()
	}
	d.Stop()
}
