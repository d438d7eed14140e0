package proc

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
)

func TestMain(m *testing.M) {
	Stage()
	if role := os.Getenv("PROC_TEST_ROLE"); role != "" {
		os.Exit(helper(role))
	}
	goleak.VerifyTestMain(m)
}

// report is what a helper says about itself on its standard output.
type report struct {
	PID, PGID, SID, UID, EUID, GID int
	Groups                         []int
	FDs                            map[string]string
	Args, Env                      []string
	Dir, Exe                       string
	Status                         map[string]string // /proc/self/status
	Nice, Policy, Umask            int
	Slice                          time.Duration
	OOM                            string
	Limits                         map[int]unix.Rlimit
}

func helper(role string) int {
	switch role {
	case "report":
		r := report{PID: os.Getpid(), UID: os.Getuid(), EUID: os.Geteuid(), GID: os.Getgid(), PGID: unix.Getpgrp(),
			Args: os.Args, Env: os.Environ(), FDs: map[string]string{}, Status: map[string]string{},
			Limits: map[int]unix.Rlimit{}}
		r.SID, _ = unix.Getsid(0)
		r.Groups, _ = os.Getgroups()
		r.Dir, _ = os.Getwd()
		r.Exe, _ = os.Executable()
		text, _ := os.ReadFile("/proc/self/status")
		for line := range strings.Lines(string(text)) {
			if k, v, ok := strings.Cut(line, ":"); ok {
				r.Status[k] = strings.TrimSpace(v)
			}
		}
		names, _ := os.ReadDir("/proc/self/fd")
		for _, n := range names {
			target, err := os.Readlink("/proc/self/fd/" + n.Name())
			// What the runtime of this helper opened is close-on-exec.
			fd, _ := strconv.Atoi(n.Name())
			flags, ferr := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
			if err == nil && ferr == nil && flags&unix.FD_CLOEXEC == 0 {
				r.FDs[n.Name()] = target
			}
		}
		prio, _ := unix.Getpriority(unix.PRIO_PROCESS, os.Getpid())
		r.Nice = 20 - prio
		policy, _, _ := unix.Syscall(unix.SYS_SCHED_GETSCHEDULER, 0, 0, 0)
		r.Policy = int(policy)
		if attr, err := unix.SchedGetAttr(0, 0); err == nil {
			r.Slice = time.Duration(attr.Runtime)
		}
		r.Umask = unix.Umask(0)
		oom, _ := os.ReadFile("/proc/self/oom_score_adj")
		r.OOM = strings.TrimSpace(string(oom))
		for _, res := range []int{unix.RLIMIT_CORE, unix.RLIMIT_NPROC} {
			var l unix.Rlimit
			_ = unix.Prlimit(0, res, nil, &l)
			r.Limits[res] = l
		}
		_ = json.NewEncoder(os.Stdout).Encode(r)
	case "sleep":
		fmt.Println("up")
		time.Sleep(time.Hour)
	case "exit":
		n, _ := strconv.Atoi(os.Args[1])
		return n
	case "tree": // a child in the same group that outlives it
		p, err := os.StartProcess("/proc/self/exe", []string{"sleep"}, &os.ProcAttr{Env: []string{"PROC_TEST_ROLE=sleep"}, Files: []*os.File{nil, nil, nil}})
		if err != nil {
			return 1
		}
		fmt.Println(p.Pid)
		if os.Args[1] == "stay" {
			time.Sleep(time.Hour)
		}
	case "parent": // starts one, tells its pid, and reaps it
		p, err := Start(Launch{Command: []string{"/proc/self/exe", os.Args[1]}, Env: []string{"PROC_TEST_ROLE=" + os.Args[2]}, UID: -1, GID: -1, Umask: -1})
		if err != nil || p.Started() != nil {
			return 1
		}
		fmt.Println(p.PID())
		_, _ = p.Wait()
		time.Sleep(time.Hour)
	case "ignoring": // starts one with signals ignored and blocked
		signal.Ignore(unix.SIGHUP, unix.SIGINT, unix.SIGPIPE, unix.SIGTERM)
		var set unix.Sigset_t
		set.Val[0] = 1 << (unix.SIGTERM - 1)
		_ = unix.PthreadSigmask(unix.SIG_BLOCK, &set, nil)
		p, err := Start(Launch{Command: []string{"/bin/cat", "/proc/self/status"}, UID: -1, GID: -1, Umask: -1, Stdout: fdpass.NewFile(1)})
		if err != nil {
			return 1
		}
		_, _ = p.Wait()
	}
	return 0
}

func keep(l Launch) Launch {
	l.UID, l.GID, l.Umask = -1, -1, -1
	return l
}

// me is a Launch of this test binary in a role.
func me(role string, args ...string) Launch {
	return keep(Launch{Command: append([]string{os.Args[0]}, args...), Env: []string{"PROC_TEST_ROLE=" + role, "GORACE=atexit_sleep_ms=0"}})
}

func mustStart(t testing.TB, l Launch) *Process {
	t.Helper()
	p, err := Start(l)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.KillTree()
		_, _ = p.Wait()
		_ = p.Close()
		_ = p.Started()
	})
	return p
}

// withOutput starts l with its output in a pipe, and returns the read end.
func withOutput(t testing.TB, l Launch) (*Process, *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	fd, err := unix.FcntlInt(w.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	out := fdpass.NewFile(fd)
	l.Stdout = out
	p := mustStart(t, l)
	_ = out.Close()
	return p, r
}

// run starts l in the role report and returns what it said.
func run(t testing.TB, l Launch) (report, *Process) {
	t.Helper()
	p, out := withOutput(t, l)
	if err := p.Started(); err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(out)
	if err != nil {
		t.Fatal(err)
	}
	var r report
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatalf("%v: %.200q", err, text)
	}
	if exit, err := p.Wait(); err != nil || exit.Code != 0 || !exit.Known {
		t.Fatalf("exit: %+v, %v", exit, err)
	}
	return r, p
}

func readLine(t testing.TB, f *os.File) string {
	t.Helper()
	var line []byte
	for b := make([]byte, 1); ; {
		if n, err := f.Read(b); n == 0 || err != nil {
			t.Fatalf("end of output: %q, %v", line, err)
		}
		if b[0] == '\n' {
			return string(line)
		}
		line = append(line, b[0])
	}
}

func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not in ten seconds: " + what)
		}
	}
}

// noLeaks fails the test when it ends with more descriptors than it began with.
// It is called before anything registers a cleanup.
func noLeaks(t *testing.T) {
	t.Helper()
	before := count(t)
	t.Cleanup(func() {
		after := count(t)
		for target, n := range after {
			if n > before[target] && !strings.HasPrefix(target, "anon_inode:[event") {
				t.Errorf("left open: %s", target)
			}
		}
	})
}

func count(t *testing.T) map[string]int {
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	n := make(map[string]int)
	for _, name := range names {
		if target, err := os.Readlink("/proc/self/fd/" + name.Name()); err == nil {
			n[target]++
		}
	}
	return n
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
}

// readable by any user, unlike t.TempDir
func publicDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "proc")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// publicBinary is a copy of the test binary that any user may execute.
func publicBinary(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(publicDir(t), "helper")
	if err := os.WriteFile(path, text, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func wantStageError(t *testing.T, l Launch, step string, errno syscall.Errno, sentence string) {
	t.Helper()
	p := mustStart(t, l)
	err := p.Started()
	var e *StageError
	if !errors.As(err, &e) || e.Step != step || e.Errno != errno || e.Sentence != sentence || (errno != 0 && !errors.Is(err, errno)) {
		t.Errorf("got  %#v\nwant step %s, errno %d, %s", err, step, errno, sentence)
	}
	if exit, err := p.Wait(); err != nil || exit.Code != stageExit {
		t.Errorf("exit: %v, %v", exit, err)
	}
}

func lines(text []byte) [][]byte { return bytes.Split(bytes.TrimSpace(text), []byte("\n")) }
