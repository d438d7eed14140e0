package main

import (
	"net"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/f72e338e/supervisord/internal/testkit"
)

// orders tells hostile workers what to do. Those that have it do it until rest; one that
// is started meanwhile is told the same.
type orders struct {
	t      testkit.T
	path   string
	accept *net.UnixListener
	ended  chan struct{}

	mu    sync.Mutex
	deed  string
	conns []net.Conn // of workers that wait, or do the deed
	told  int        // how many were told this deed
}

// giveOrders listens on a path.
func giveOrders(t testkit.T, path string) *orders {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatalf("%v", err)
	}
	o := &orders{t: t, path: path, accept: l, ended: make(chan struct{})}
	go o.serve()
	t.Cleanup(func() {
		_ = l.Close()
		<-o.ended
		o.hangUp()
	})
	return o
}

func (o *orders) serve() {
	defer close(o.ended)
	for {
		c, err := o.accept.Accept()
		if err != nil {
			return
		}
		o.mu.Lock()
		o.conns = append(o.conns, c)
		o.tell(c)
		o.mu.Unlock()
	}
}

func (o *orders) tell(c net.Conn) {
	if o.deed == "" {
		return
	}
	if _, err := c.Write([]byte(o.deed + "\n")); err == nil {
		o.told++
	}
}

// do lets the workers do a deed.
func (o *orders) do(deed string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.deed, o.told = deed, 0
	for _, c := range o.conns {
		o.tell(c)
	}
}

// rest ends the deed, and the workers that do it. It returns how many had to be told:
// more than one where the master ends whoever does it.
func (o *orders) rest() int {
	o.mu.Lock()
	o.deed = ""
	told := o.told
	o.mu.Unlock()
	o.hangUp()
	return told
}

func (o *orders) hangUp() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, c := range o.conns {
		_ = c.Close()
	}
	o.conns = nil
}

// waiting reports whether a worker waits for orders.
func (o *orders) waiting() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.conns) > 0
}

// ticksBelow is how much CPU time, each 10 ms, the children of a process have used
// that have ended, and those of these that live. proc_pid_stat(5)
func ticksBelow(pid int, living ...int) int64 {
	text, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	// The name, field 2, may hold spaces and parentheses.
	s := string(text)
	f := strings.Fields(s[strings.LastIndexByte(s, ')')+1:])
	var sum int64
	if len(f) > 14 {
		for _, field := range f[13:15] { // cutime, cstime
			n, _ := strconv.ParseInt(field, 10, 64)
			sum += n
		}
	}
	for _, pid := range living {
		sum += testkit.RestOf(pid).Ticks
	}
	return sum
}
