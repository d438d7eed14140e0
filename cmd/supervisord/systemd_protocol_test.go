package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/f72e338e/supervisord/internal/api"
	"github.com/f72e338e/supervisord/internal/testkit"
)

// activated is a pool of programs that know sockets from systemd and nothing of us.
type activated struct {
	listeners []string
	pool      string // more lines of [pool.web]
	rest      string
}

func (a activated) toml(t *testing.T) string {
	var b strings.Builder
	var names []string
	for i, l := range a.listeners {
		names = append(names, fmt.Sprintf("%q", fmt.Sprintf("l%d", i)))
		fmt.Fprintf(&b, "[listener.l%d]\n%s\n", i, l)
	}
	fmt.Fprintf(&b, "[pool.web]\ncommand = [%q, \"-c\", %q]\nprotocol = \"systemd\"\nlisteners = [%s]\n%s\n[pool.web.rollout]\nmonitor = \"0s\"\n%s\n",
		python(t), activatedProgram, strings.Join(names, ", "), a.pool, a.rest)
	return b.String()
}

// python returns the interpreter of the programs of these tests.
func python(t *testing.T) string {
	t.Helper()
	for _, path := range []string{"/usr/bin/python3", "/usr/local/bin/python3"} {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	t.Skip("needs python3")
	return ""
}

// activatedProgram answers with what systemd would have told it, one connection after
// the other, with a plain accept(2). SAY is what it says when a line comes that asks
// for it.
const activatedProgram = `
import os, select, signal, socket, sys, threading
def say(text):
    c = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    c.sendto(text.encode(), os.environ["NOTIFY_SOCKET"])
    c.close()
def serve(s):
    while True:
        if not os.get_blocking(3):
            select.select([s], [], [])
        c, _ = s.accept()
        line = c.makefile().readline().strip()
        if line.startswith("say "):
            say(line[4:])
        if line.startswith("to "):
            _, path, text = line.split(" ", 2)
            os.environ["NOTIFY_SOCKET"], old = path, os.environ["NOTIFY_SOCKET"]
            say(text)
            os.environ["NOTIFY_SOCKET"] = old
        if line == "hold":
            kept.append(c)
            c.sendall(b"held\n")
            continue
        own = os.environ["LISTEN_PID"] == str(os.getpid())
        c.sendall(("pid=%d own=%s fds=%s names=%s watchdog=%s nonblock=%s notify=%s\n" % (os.getpid(), own, os.environ["LISTEN_FDS"],
            os.environ["LISTEN_FDNAMES"], os.environ.get("WATCHDOG_USEC"), not os.get_blocking(3), os.environ["NOTIFY_SOCKET"])).encode())
        c.close()
        if "STOPPING" in line:
            os._exit(0)
kept = []
signal.signal(signal.SIGTERM, lambda *a: os._exit(0))
if os.environ.get("FIRST"):
    say(os.environ["FIRST"])
for fd in range(3, 3 + int(os.environ["LISTEN_FDS"])):
    threading.Thread(target=serve, args=(socket.socket(fileno=fd),), daemon=True).start()
while True:
    signal.pause()
`

// send sends a line.
func send(t *testing.T, address, line string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c, line+"\n"); err != nil {
		t.Fatal(err)
	}
	return c
}

// tell sends a line and returns the answer.
func tell(t *testing.T, address, line string) string {
	t.Helper()
	c := send(t, address, line)
	answer, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		t.Fatalf("%s: %q %v", line, answer, err)
	}
	return strings.TrimSpace(answer)
}

// TestActivated: a program that takes its sockets from systemd gets them here, is ready
// when it waits for connections, is counted, replaced and ended.
func TestActivated(t *testing.T) {
	t.Parallel()
	first, second := testkit.Address(t), testkit.Address(t)
	d := testkit.New(t)
	d.Configure(activated{listeners: []string{fmt.Sprintf("address = %q", first), fmt.Sprintf("address = %q", second)},
		pool: "workers = 2\nheartbeat_timeout = \"1h\""}.toml(t))
	d.Start()
	status := d.WaitReady()
	for _, address := range []string{first, second} {
		answer := tell(t, address, "hello")
		for _, want := range []string{"own=True", "fds=2", "names=l0:l1", "watchdog=3600000000", "nonblock=False"} {
			if !strings.Contains(answer, want) {
				t.Errorf("%s: no %s in %q", address, want, answer)
			}
		}
	}
	for _, l := range status.Listeners {
		if len(l.Holders) != 2 {
			t.Errorf("listener %s: holders %v", l.Name, l.Holders)
		}
	}
	open := 0
	for range 3 {
		if tell(t, first, "hold") == "held" {
			open++
		}
	}
	d.Await("the connections are counted", func(s api.Status) bool {
		var total int64
		for _, w := range s.Pools[0].Workers {
			if w.Connections == nil || w.Accepted != nil { // the one is found out, the other cannot be
				return false
			}
			total += *w.Connections
		}
		return total == int64(open)
	})
	before := testkit.PIDs(status, "web")
	d.Must("restart")
	after := testkit.PIDs(d.WaitReady(), "web")
	for slot, pid := range after {
		if before[slot] == pid {
			t.Errorf("slot %d was not replaced", slot)
		}
	}
	d.Stop()
}

// TestActivatedNonBlocking: programs that take O_NONBLOCK for granted get it, also by a
// reload, and keep it when a pool that shares their socket starts workers.
func TestActivatedNonBlocking(t *testing.T) {
	t.Parallel()
	address := testkit.Address(t)
	d := testkit.New(t)
	a := activated{listeners: []string{fmt.Sprintf("address = %q", address)}}
	d.Configure(a.toml(t))
	d.Start()
	d.WaitReady()
	if answer := tell(t, address, "hello"); !strings.Contains(answer, "nonblock=False") {
		t.Errorf("at the start: %q", answer)
	}
	a.pool = "non_blocking = true"
	a.rest = fmt.Sprintf("[pool.other]\ncommand = [%q, \"-c\", %q]\nprotocol = \"systemd\"\nlisteners = [\"l0\"]\n[pool.other.rollout]\nmonitor = \"0s\"\n", python(t), activatedProgram)
	d.Configure(a.toml(t))
	d.Must("reload")
	d.Must("restart", "other")
	if answer := tell(t, address, "hello"); !strings.Contains(answer, "nonblock=True") {
		t.Errorf("after the reload: %q", answer)
	}
	d.Stop()
}

// TestNotifyOfWorkers: what such a worker says is heard, and nobody else in its name.
func TestNotifyOfWorkers(t *testing.T) {
	t.Parallel()
	one, two := testkit.Address(t), testkit.Address(t)
	d := testkit.New(t)
	d.Configure(activated{listeners: []string{fmt.Sprintf("address = %q", one)}, pool: "ready = \"notify\"\nenv = { FIRST = \"READY=1\\nSTATUS=warm\" }",
		rest: fmt.Sprintf("[listener.other]\naddress = %q\n[pool.other]\ncommand = [%q, \"-c\", %q]\nprotocol = \"systemd\"\nlisteners = [\"other\"]\n", two, python(t), activatedProgram)}.toml(t))
	d.Start()
	d.WaitReady()
	state := func(pool string) api.Worker {
		for _, p := range d.Status().Pools {
			if p.Name == pool && len(p.Workers) > 0 {
				return p.Workers[0]
			}
		}
		return api.Worker{}
	}
	if w := state("web"); w.Status != "warm" {
		t.Errorf("status %q", w.Status)
	}
	path := tell(t, one, "hello")
	path = path[strings.Index(path, "notify=")+len("notify="):]
	tell(t, two, "to "+path+" STATUS=forged")
	d.WaitLog("which is not of this worker")
	tell(t, one, "say STATUS=mine")
	d.Await("its own word", func(api.Status) bool { return state("web").Status == "mine" })
	old := *state("web").PID
	tell(t, one, "say STOPPING=1")
	d.Await("it is replaced", func(api.Status) bool {
		w := state("web")
		return w.State == "ready" && w.PID != nil && *w.PID != old
	})
	old = *state("web").PID
	send(t, one, "say WATCHDOG=trigger") // and it may be gone before it answers
	d.Await("it is replaced again", func(api.Status) bool {
		w := state("web")
		return w.State == "ready" && w.PID != nil && *w.PID != old
	})
	d.Stop()
}

// TestNotListening: a worker that does not wait for connections does not become ready
// because time passes.
func TestNotListening(t *testing.T) {
	t.Parallel()
	d := testkit.New(t)
	d.Configure(fmt.Sprintf("[listener.web]\naddress = %q\n[pool.web]\ncommand = [\"sleep\", \"100\"]\nprotocol = \"systemd\"\nlisteners = [\"web\"]\nstart_timeout = \"1s\"\nmax_restarts = 1\non_limit = \"exit\"\n", testkit.Address(t)))
	d.Launch("run", "-c", d.File, "--socket", d.Socket)
	d.WaitLog("not ready within 1s")
	testkit.Until(t, 20*time.Second, "the daemon has ended", d.Exited)
}
