package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/f72e338e/supervisord/internal/api"
	"github.com/f72e338e/supervisord/internal/testkit"
)

// passers is a daemon whose slot 0 passes on what it accepts.
type passers struct {
	*testkit.Daemon
	t       *testing.T
	network string
	address string
	clients sync.WaitGroup
	mu      sync.Mutex
	answers []passAnswer
	kept    int // served by slot 0
}

// passAnswer is who served a client.
type passAnswer struct {
	slot, pid int
	err       error
}

func newPassers(t *testing.T, policy string, workers int) *passers {
	t.Helper()
	p := &passers{Daemon: testkit.New(t), t: t, network: "tcp", address: testkit.Address(t)}
	listener := fmt.Sprintf("address = %q\npolicy = %q\n", p.address, policy)
	if policy == "unix" {
		p.network, p.address = "unix", p.Path("s")
		listener = fmt.Sprintf("address = \"unix:%s\"\n", p.address)
	}
	p.Configure(fmt.Sprintf("[listener.web]\n%s[pool.web]\ncommand = [%q]\nworkers = %d\nlisteners = [\"web\"]\nrollout.monitor = \"0s\"\n",
		listener, testkit.Program(t, "cmd/supervisord/testdata/passer"), workers))
	p.Start()
	return p
}

// dial connects a client, which says a line at once and waits for the answer.
func (p *passers) dial() {
	p.t.Helper()
	c, err := net.Dial(p.network, p.address)
	if err != nil {
		p.t.Fatal(err)
	}
	line := strings.Repeat("all of it ", 800) + "\n"
	p.clients.Go(func() {
		defer func() { _ = c.Close() }()
		_ = c.SetDeadline(time.Now().Add(testkit.Patience))
		var a passAnswer
		if _, a.err = io.WriteString(c, line); a.err == nil {
			var got string
			got, a.err = bufio.NewReader(c).ReadString('\n')
			if a.err == nil {
				_, a.err = fmt.Sscan(got, &a.slot, &a.pid)
			}
			if a.err == nil && !strings.HasSuffix(got, " "+line) {
				a.err = fmt.Errorf("not the whole line: %d of %d bytes", len(got), len(line))
			}
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.answers = append(p.answers, a)
	})
}

// passed is how many connections were passed on.
func (p *passers) passed() int { return strings.Count(p.Output(), "passed on") }

// served waits for all clients. Nobody has an answer of the process, and of slot 0
// only what it could not pass on.
func (p *passers) served(not int) {
	p.t.Helper()
	p.clients.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range p.answers {
		if a.slot == 0 {
			p.kept++
		}
		if a.err != nil || a.pid == not {
			p.t.Errorf("served by slot %d, process %d: %v", a.slot, a.pid, a.err)
		}
	}
	p.answers = nil
	if n := strings.Count(p.Output(), "not passed: cannot pass: no such file or directory"); p.kept > n {
		p.t.Errorf("%d connections were not passed on, %d of them for a reason", p.kept, n)
	}
}

// until dials until so many more were passed on.
func (p *passers) until(more int) {
	p.t.Helper()
	want := p.passed() + more
	for i := 0; p.passed() < want; i++ {
		if i == 2000 {
			p.t.Fatalf("%d connections, and %d of %d passed on", i, p.passed(), want)
		}
		p.dial()
		time.Sleep(time.Millisecond) // not for anything to happen: to find the end in time
	}
}

var passPolicies = []string{"shared", "round_robin", "reuse_port", "unix"}

// TestPassOn: what slot 0 passes on another serves, and hears all that the client
// said; also after all workers were replaced.
func TestPassOn(t *testing.T) {
	for _, policy := range passPolicies {
		t.Run(policy, func(t *testing.T) {
			p := newPassers(t, policy, 2)
			p.until(5)
			p.served(0)
			fds := len(testkit.FDs(p.PID))
			p.until(10)
			p.served(0)
			p.Must("restart")
			p.WaitSettled()
			p.until(10)
			p.served(0)
			if n := strings.Count(p.Output(), "not passed"); n > 0 {
				t.Errorf("%d not passed", n)
			}
			testkit.Until(t, testkit.Patience, "as many descriptors as before", func() bool { return len(testkit.FDs(p.PID)) <= fds+2 })
			p.Stop()
		})
	}
}

// TestPassOnToOneThatDies: a worker is killed before it accepted what was passed on.
// Its successor serves it, or a third.
func TestPassOnToOneThatDies(t *testing.T) {
	for _, policy := range passPolicies {
		for _, workers := range []int{2, 3} {
			t.Run(fmt.Sprintf("%s, %d workers", policy, workers), func(t *testing.T) {
				p := newPassers(t, policy, workers)
				for pid, round := 0, 0; round < 2; round++ { // without a channel yet, and with one
					before := pid
					p.Await("another worker", func(s api.Status) bool {
						pid = testkit.PIDs(s, "web")[1]
						return pid != 0 && pid != before
					})
					stopProcess(t, pid)
					p.until(2)
					if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
						t.Fatal(err)
					}
					p.served(pid)
				}
				p.Stop()
			})
		}
	}
}

// stopProcess stops a process, and waits until it has stopped. proc(5)
func stopProcess(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	testkit.Until(t, testkit.Patience, "a process that is stopped", func() bool {
		status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		return strings.Contains(string(status), "State:\tT")
	})
}

// TestPassOnAlone: nobody else is there, so the worker serves it itself.
func TestPassOnAlone(t *testing.T) {
	for _, policy := range passPolicies {
		t.Run(policy, func(t *testing.T) {
			p := newPassers(t, policy, 1)
			p.dial()
			p.clients.Wait()
			if a := p.answers[0]; a.err != nil || a.slot != 0 {
				t.Errorf("%+v", a)
			}
			p.Await("why", func(api.Status) bool {
				return strings.Contains(p.Output(), "not passed: cannot pass: no such file or directory (no other ready worker listens on handle 1)")
			})
			p.Stop()
		})
	}
}

// TestPassOnBad: what cannot be passed on is refused, and nothing of it stays open.
func TestPassOnBad(t *testing.T) {
	d := testkit.New(t)
	d.Configure(fmt.Sprintf("[listener.web]\naddress = %q\n[pool.bad]\ncommand = [%q, \"bad\"]\ngraceful_timeout = \"100ms\"\nkill_timeout = \"1s\"\nlisteners = [\"web\"]\n",
		testkit.Address(t), testkit.Program(t, "cmd/supervisord/testdata/passer")))
	d.Start()
	said := func(what string) {
		t.Helper()
		d.Await(what, func(api.Status) bool { return strings.Contains(d.Output(), what) })
	}
	said("first round")
	pid, fds := testkit.PIDs(d.Status(), "bad")[0], len(testkit.FDs(d.PID))
	if err := syscall.Kill(pid, syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	said("last round")
	testkit.Until(t, testkit.Patience, "as many descriptors as before", func() bool { return len(testkit.FDs(d.PID)) <= fds+1 })
	if out := d.Output(); strings.Contains(out, "wrong:") {
		t.Errorf("%s", out)
	}
	if now := testkit.PIDs(d.Status(), "bad")[0]; now != pid {
		t.Errorf("process %d, was %d", now, pid)
	}
	d.Stop()
}
