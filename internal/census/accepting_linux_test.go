package census

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/internal/testkit"
)

// serveNet accepts as Go programs do, or receives.
func serveNet() {
	f := os.NewFile(first, "socket")
	kind, _ := unix.GetsockoptInt(first, unix.SOL_SOCKET, unix.SO_TYPE)
	if l, err := net.FileListener(f); err == nil && kind != unix.SOCK_DGRAM {
		for {
			if _, err := l.Accept(); err != nil {
				return
			}
		}
	}
	c, err := net.FilePacketConn(f)
	for err == nil {
		_, _, err = c.ReadFrom(make([]byte, 10))
	}
}

// wantHow waits until the worker waits for connections in a way.
func (w *worker) wantHow(l *open, want string) {
	w.t.Helper()
	var how string
	if !testkit.Eventually(w.t, testkit.Patience, func() bool {
		var err error
		how, err = Accepting(l.Socket, w.tree())
		must(w.t, err)
		return how == want
	}) {
		w.t.Fatalf("waits by %q, want %q", how, want)
	}
}

func TestAcceptingGo(t *testing.T) {
	for network, address := range map[string]string{"tcp4": "", "unix": "@", "unixpacket": "", "udp4": "", "unixgram": ""} {
		t.Run(network, func(t *testing.T) {
			noLeaks(t)
			l := listen(t, plan{network: network, address: address})
			start(t, []string{"/proc/self/exe"}, "net", l.fd).wantHow(l, "epoll")
		})
	}
}

// waits are ways to wait for connections; s is the socket.
var waits = []struct{ name, network, how, script string }{
	{"accept", "tcp4", "accept", "s.accept()"},
	{"accept of unix", "unix", "accept", "s.accept()"},
	{"accept in a thread", "tcp4", "accept", "threading.Thread(target=s.accept).start()\nos.read(3, 1)"},
	{"accept with a deadline", "tcp4", "poll", "s.settimeout(1000)\ns.accept()"},
	{"select", "tcp4", "select", "select.select([s], [], [])"},
	{"select with a deadline", "tcp4", "select", "select.select([s], [], [], 1000)"},
	{"select among others", "tcp4", "select", "os.dup2(4, 100)\nselect.select([0, 3, 100], [], [])"},
	{"poll", "tcp4", "poll", "p = select.poll()\np.register(s, select.POLLIN)\np.poll()"},
	{"poll of 10000", "tcp4", "poll", `
a = (ctypes.c_uint64 * 10000)(*[0xffffffff] * 10000)
a[9999] = 4 | 1 << 32 if sys.byteorder == "little" else 4 << 32 | 1 << 16
ctypes.CDLL(None).poll(a, 10000, -1)`},
	{"epoll", "tcp4", "epoll", "p = select.epoll()\np.register(s, select.EPOLLIN)\np.poll()"},
	{"epoll, busy", "tcp4", "epoll", "p = select.epoll()\np.register(s, select.EPOLLIN | select.EPOLLEXCLUSIVE)\nos.read(3, 1)"},
	{"asyncio", "tcp4", "epoll", `
async def main():
    await (await asyncio.start_server(lambda r, w: None, sock=s)).serve_forever()
asyncio.run(main())`},
	{"children", "tcp4", "accept", `
children = [os.fork() for i in range(1)]
if children[0] == 0:
    s.accept()
s.close()
os.wait()`},
	{"child of a session", "tcp4", "select", `
if os.fork() == 0:
    os.setsid()
    select.select([s, 3], [], [])
    os._exit(0)
s.close()
os.wait()`},
	{"receive", "udp4", "receive", "s.recvfrom(10)"},
	{"receive a message", "udp4", "receive", "s.recvmsg(10)"},
	{"read", "unixgram", "receive", "os.read(4, 10)"},
	{"poll for datagrams", "udp4", "poll", "s.settimeout(1000)\ns.recv(10)"},
}

// rests are what is no waiting for connections. Each says when it is there.
var rests = []struct{ name, network, script string }{
	{"nothing", "tcp4", ""},
	{"closed", "tcp4", "s.close()"},
	{"closed, still in epoll", "tcp4", "p = select.epoll()\np.register(s, select.EPOLLIN)\ns.close()"},
	{"epoll, not asked for input", "tcp4", "p = select.epoll()\np.register(s, 0)"},
	{"epoll of another", "tcp4", "p = select.epoll()\np.register(3, select.EPOLLIN)"},
	{"epoll, once", "tcp4", `
p = select.epoll()
c = socket.create_connection(s.getsockname())
p.register(s, select.EPOLLIN | select.EPOLLONESHOT)
p.poll()`},
	{"datagram", "udp4", ""},
}

// calls that wait, but not for connections of s.
var otherCalls = []struct{ name, call, script string }{
	{"accept of another", "accept", "o = socket.socket()\no.listen()\no.accept()"},
	{"poll of another", "poll", "p = select.poll()\np.register(3, select.POLLIN)\np.poll()"},
	{"poll, not asked for input", "poll", "p = select.poll()\np.register(s, select.POLLPRI)\np.register(3, select.POLLIN)\np.poll()"},
	{"select of another", "select", "select.select([3], [], [s])"},
	{"select without input", "select", "select.select([], [], [s])"},
}

func TestAccepting(t *testing.T) {
	for _, c := range waits {
		t.Run(c.name, func(t *testing.T) {
			noLeaks(t)
			l := listen(t, plan{network: c.network})
			w := startPython(t, c.script, l.fd)
			w.wantHow(l, c.how)
			other := listen(t, plan{network: c.network})
			if how, err := Accepting(other.Socket, w.tree()); how != "" || err != nil {
				t.Errorf("waits for what it does not have: %q, %v", how, err)
			}
		})
	}
}

func TestNotAccepting(t *testing.T) {
	for _, c := range rests {
		t.Run(c.name, func(t *testing.T) {
			noLeaks(t)
			l := listen(t, plan{network: c.network})
			w := startPython(t, c.script+"\nprint(1, flush=True)\nos.read(3, 1)\n", l.fd)
			w.line()
			w.wantNone(l)
		})
	}
	for _, c := range otherCalls {
		t.Run(c.name, func(t *testing.T) {
			noLeaks(t)
			l := listen(t, plan{network: "tcp4"})
			w := startPython(t, "print(1, flush=True)\n"+c.script, l.fd)
			w.line()
			numbers := map[string][]int{"accept": accepts, "poll": polls, "select": selects}[c.call]
			until(t, "a thread in "+c.call, func() bool { return w.isIn(numbers) })
			w.wantNone(l)
		})
	}
}

func (w *worker) wantNone(l *open) {
	w.t.Helper()
	if how, err := Accepting(l.Socket, w.tree()); how != "" || err != nil {
		w.t.Errorf("waits by %q, %v", how, err)
	}
}

// isIn says whether the first thread is in one of these calls.
func (w *worker) isIn(numbers []int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/syscall", w.pid))
	must(w.t, err)
	c, ok := parseCall(string(text))
	for _, n := range numbers {
		if ok && c.number == n {
			return true
		}
	}
	return false
}

// TestContinued: a poll(2) that a stop interrupted goes on as another call.
func TestContinued(t *testing.T) {
	for name, script := range map[string]string{"poll": "s.settimeout(1000)\ns.accept()", "futex": "l = threading.Lock()\nl.acquire()\nl.acquire(True, 1000)"} {
		t.Run(name, func(t *testing.T) {
			noLeaks(t)
			l := listen(t, plan{network: "tcp4"})
			w := startPython(t, script, l.fd)
			how := ""
			if name == "poll" {
				how = "poll"
				w.wantHow(l, how)
			} else {
				until(t, "a thread in futex", func() bool { return w.isIn([]int{unix.SYS_FUTEX}) })
			}
			must(t, unix.Kill(w.pid, unix.SIGSTOP))
			until(t, "the stop", func() bool {
				p, err := new(reader).process(procPath(w.pid))
				must(t, err)
				return p.state == 'T'
			})
			w.wantHow(l, how)
			must(t, unix.Kill(w.pid, unix.SIGCONT))
			if runtime.GOARCH == "amd64" {
				until(t, "the call to go on", func() bool { return w.isIn([]int{unix.SYS_RESTART_SYSCALL}) })
			}
			w.wantHow(l, how)
		})
	}
}

// TestOldSelect: what C libraries called before pselect6.
func TestOldSelect(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("no select(2) on " + runtime.GOARCH)
	}
	noLeaks(t)
	l := listen(t, plan{network: "tcp4"})
	startPython(t, "ctypes.CDLL(None).syscall(23, 5, ctypes.byref(ctypes.c_uint64(1 << 4)), 0, 0, 0)", l.fd).wantHow(l, "select")
}

func TestParseCall(t *testing.T) {
	c, ok := parseCall("270 0x4 0x7fff584ac2d0 0xffffffffffffffff 0x0 0x7fff584ac210 0x0 0x7fff584ac200 0x7fe16c05f954\n")
	if !ok || c.number != 270 || c.args != [3]uint64{4, 0x7fff584ac2d0, 1<<64 - 1} {
		t.Errorf("%+v", c)
	}
	for _, text := range []string{"running\n", "-1 0x7fff584ac200 0x7fe16c05f954\n", "", "270 x 0 0 0 0 0 0 0"} {
		if _, ok := parseCall(text); ok {
			t.Errorf("%q is understood", text)
		}
	}
}
