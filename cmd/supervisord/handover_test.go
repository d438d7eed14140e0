package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/f72e338e/supervisord/internal/api"
	"github.com/f72e338e/supervisord/internal/testkit"
)

// handed connects a client, and waits until the master has handed it over: it is
// not in the kernel's queue any more.
func handed(t *testing.T, d *testkit.Daemon, address string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(testkit.Patience))
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	d.Await("nothing in the queue", func(s api.Status) bool { return s.Listeners[0].Queued != nil && *s.Listeners[0].Queued == 0 })
	return c
}

// TestHandedToOneThatClosed: a worker closes its listener with a connection in its
// channel that it has not taken, and goes on. The next one that listens gets it, which
// may be itself.
func TestHandedToOneThatClosed(t *testing.T) {
	d := testkit.New(t)
	address := testkit.Address(t)
	d.Configure(fmt.Sprintf("[listener.web]\naddress = %q\npolicy = \"round_robin\"\n[pool.web]\ncommand = [%q]\nlisteners = [\"web\"]\n",
		address, testkit.Program(t, "cmd/supervisord/testdata/closer")))
	d.Start()
	pid := testkit.PIDs(d.WaitReady(), "web")[0]
	c := handed(t, d, address)
	if err := syscall.Kill(pid, syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	d.Await("closed", func(api.Status) bool { return strings.Contains(d.Output(), "closed") })
	if err := syscall.Kill(pid, syscall.SIGUSR2); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(c); err != nil || string(b) != "hello" {
		t.Errorf("the client heard %q, %v", b, err)
	}
	d.Stop()
}

// TestHandedBeforeShared: a worker that was handed a connection is replaced by others
// that accept for themselves, and dies. They get what it had not taken.
func TestHandedBeforeShared(t *testing.T) {
	d := testkit.New(t)
	address := testkit.Address(t)
	configure := func(policy string, workers int) {
		d.Configure(fmt.Sprintf("[listener.web]\naddress = %q\npolicy = %q\n[pool.web]\ncommand = [%q]\nworkers = %d\nlisteners = [\"web\"]\nrollout.monitor = \"0s\"\n",
			address, policy, testkit.Program(t, "cmd/worker"), workers))
	}
	configure("round_robin", 1)
	d.Start()
	first := testkit.PIDs(d.WaitReady(), "web")[0]
	stopProcess(t, first)
	c := handed(t, d, address)
	configure("shared", 2)
	d.Must("reload")
	d.Await("two workers more", func(s api.Status) bool { return s.Pools[0].Ready == 2 })
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(c)
	if err != nil || !strings.HasPrefix(string(text), "HTTP/1.1 "+fmt.Sprint(http.StatusOK)) || strings.Contains(string(text), fmt.Sprintf("pid=%d ", first)) {
		t.Errorf("the client heard %q, %v", text, err)
	}
	d.Stop()
}

// TestFewDescriptors: workers that can have some twenty connections take as many, and
// what is more waits for them.
func TestFewDescriptors(t *testing.T) {
	const clients = 60
	d := testkit.New(t)
	address := testkit.Address(t)
	d.Configure(fmt.Sprintf("[listener.web]\naddress = %q\npolicy = \"round_robin\"\n[pool.web]\ncommand = [%q, \"--echo\"]\nworkers = 2\nlisteners = [\"web\"]\nlimits.nofile = 32\n",
		address, testkit.PlainProgram(t, "cmd/worker")))
	d.Start()
	d.WaitReady()
	answered := make(chan net.Conn, clients)
	for range clients {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		_ = c.SetDeadline(time.Now().Add(testkit.Patience))
		go func() {
			var b [1]byte
			_, werr := c.Write([]byte("x"))
			if n, err := c.Read(b[:]); werr != nil || n != 1 {
				t.Errorf("%v, %v", werr, err)
			}
			answered <- c
		}()
	}
	for range clients { // each makes room for another
		_ = (<-answered).Close()
	}
	d.Stop()
}
