package census

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/internal/testkit"
)

// role is set in a process that a test started, to what it shall be. mark is what
// tells the processes of one worker by their environment.
const (
	role = "CENSUS_TEST_ROLE"
	mark = "CENSUS_TEST_WORKER="
)

// Descriptors of every helper: one that ends when the test does, and then the
// sockets that the test gave.
const (
	life  = 3
	first = 4
)

func TestMain(m *testing.M) {
	switch os.Getenv(role) {
	case "worker":
		go endWithTest()
		obey()
	case "rest":
		endWithTest()
	case "between": // starts one that rests, and leaves it alone
		fmt.Println(again("rest", true))
	case "net":
		go endWithTest()
		serveNet()
	default:
		os.Exit(m.Run())
	}
}

// endWithTest waits until the test closes its end of the pipe.
func endWithTest() {
	for {
		if n, err := unix.Read(life, make([]byte, 1)); err != unix.EINTR && n <= 0 {
			os.Exit(0)
		}
	}
}

// obey is a worker that does what its standard input says, and says when it has.
func obey() {
	var conns []int
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		f := strings.Fields(in.Text())
		n := 0
		if len(f) > 1 {
			n, _ = strconv.Atoi(f[1])
		}
		var err error
		answer := 0
		switch f[0] {
		case "accept": // n connections; not close-on-exec, so that children get them
			for err == nil && n > 0 {
				var fd int
				if fd, _, err = unix.Accept(first); err == nil {
					conns = append(conns, fd)
				}
				n--
			}
		case "close": // the last n
			for range n {
				err = unix.Close(conns[len(conns)-1])
				conns = conns[:len(conns)-1]
			}
		case "shutdown": // the last
			err = unix.Shutdown(conns[len(conns)-1], n)
		case "release": // the listening socket
			err = unix.Close(first)
		case "child", "session":
			answer = again("rest", f[0] == "session")
		case "orphan":
			answer = between()
		case "zombie":
			var p *os.Process
			if p, err = os.StartProcess("/bin/true", []string{"true"}, &os.ProcAttr{}); err == nil {
				answer = p.Pid
			}
		}
		if err != nil {
			fmt.Println("error", f, err)
		}
		fmt.Println(answer)
	}
}

// again starts this binary in a role, and returns its number.
func again(as string, session bool) int {
	_ = os.Setenv(role, as) // no duplicate, of which the first would count
	p, err := os.StartProcess("/proc/self/exe", os.Args[:1], &os.ProcAttr{
		Env: os.Environ(), Files: []*os.File{nil, os.Stdout, os.Stderr}, Sys: &syscall.SysProcAttr{Setsid: session}})
	if err != nil {
		fmt.Println("error", err)
		return 0
	}
	return p.Pid
}

// between starts a process of another session whose parent has ended.
func between() int {
	cmd := exec.Command("/proc/self/exe")
	_ = os.Setenv(role, "between")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	r, w, _ := os.Pipe() // Output would wait for the orphan, which inherits
	cmd.Stdout = w
	if err := cmd.Run(); err != nil {
		fmt.Println("error", err)
	}
	_ = w.Close()
	line, _ := bufio.NewReader(r).ReadString('\n')
	_ = r.Close()
	pid, _ := strconv.Atoi(strings.TrimSpace(line))
	return pid
}

// worker is a helper process that leads its own session.
type worker struct {
	t   testing.TB
	pid int
	in  io.Writer
	out *bufio.Scanner
}

// start starts a command with sockets from descriptor first on. It is killed with
// its process group when the test ends; what left the group ends by itself.
func start(t testing.TB, command []string, as string, sockets ...int) *worker {
	t.Helper()
	r, w, err := os.Pipe()
	must(t, err)
	cmd := exec.Command(command[0], command[1:]...)
	cmd.ExtraFiles = []*os.File{r}
	for _, fd := range sockets {
		dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		must(t, err)
		cmd.ExtraFiles = append(cmd.ExtraFiles, os.NewFile(uintptr(dup), "socket"))
	}
	cmd.Env = []string{role + "=" + as, "GORACE=atexit_sleep_ms=0", "PATH=" + os.Getenv("PATH"), mark + t.Name()}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	for _, f := range cmd.ExtraFiles {
		_ = f.Close()
	}
	t.Cleanup(func() {
		_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
		_ = w.Close()
		_, _ = io.Copy(io.Discard, out) // until all that hold it have ended
		_ = cmd.Wait()
	})
	return &worker{t: t, pid: cmd.Process.Pid, in: in, out: bufio.NewScanner(out)}
}

func startWorker(t testing.TB, sockets ...int) *worker {
	t.Helper()
	return start(t, []string{"/proc/self/exe"}, "worker", sockets...)
}

// startPython runs a script, which has s, the first of the sockets.
func startPython(t testing.TB, script string, sockets ...int) *worker {
	t.Helper()
	python := "/usr/bin/python3"
	if _, err := os.Stat(python); err != nil {
		if python, err = exec.LookPath("python3"); err != nil {
			t.Skip("needs python3")
		}
	}
	const head = "import asyncio, ctypes, os, select, socket, sys, threading, time\ns = socket.socket(fileno=4)\n"
	return start(t, []string{python, "-c", head + script}, "", sockets...)
}

// do has the worker do something, and returns the number that it answers.
func (w *worker) do(what string) int {
	w.t.Helper()
	if _, err := fmt.Fprintln(w.in, what); err != nil {
		w.t.Fatal(err)
	}
	return w.line()
}

// line waits for a number.
func (w *worker) line() int {
	w.t.Helper()
	if !w.out.Scan() {
		w.t.Fatalf("a helper ended: %v", w.out.Err())
	}
	n, err := strconv.Atoi(w.out.Text())
	if err != nil {
		w.t.Fatalf("a helper says %q", w.out.Text())
	}
	return n
}

// tree is the tree of one worker.
func (w *worker) tree() []int {
	w.t.Helper()
	trees, err := Trees([]int{w.pid}, Orphans{})
	must(w.t, err)
	return trees[w.pid]
}

// noLeaks fails the test when it ends with other descriptors than it began with.
// Called first, it looks last.
func noLeaks(t testing.TB) {
	t.Helper()
	runtime.GC()
	sockets := func() []string {
		return slices.DeleteFunc(testkit.FDs(os.Getpid()), func(s string) bool { return strings.HasPrefix(s, "anon_inode:[event") })
	}
	before := sockets()
	t.Cleanup(func() {
		if !testkit.Eventually(cleanup{t}, testkit.Patience, func() bool { return slices.Equal(before, sockets()) }) {
			t.Errorf("descriptors before %q, after %q", before, sockets())
		}
	})
}

// cleanup is a test whose context is not used any more.
type cleanup struct{ testing.TB }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func until(t testing.TB, what string, cond func() bool) {
	t.Helper()
	testkit.Until(t, testkit.Patience, what, cond)
}
