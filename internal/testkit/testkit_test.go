package testkit

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) { Main(m) }

// fake is a T whose failures are looked at.
type fake struct {
	text    strings.Builder
	failed  bool
	cleanup []func()
}

func (f *fake) Helper()                   {}
func (f *fake) Name() string              { return "fake" }
func (f *fake) Logf(s string, a ...any)   { fmt.Fprintf(&f.text, s+"\n", a...) }
func (f *fake) Errorf(s string, a ...any) { f.failed = true; f.Logf(s, a...) }
func (f *fake) Fatalf(s string, a ...any) { f.Errorf(s, a...); runtime.Goexit() }
func (f *fake) Skipf(s string, a ...any)  { f.Logf(s, a...); runtime.Goexit() }
func (f *fake) Failed() bool              { return f.failed }
func (f *fake) Cleanup(fn func())         { f.cleanup = append(f.cleanup, fn) }
func (f *fake) Context() context.Context  { return context.Background() }
func (f *fake) part(fn func()) {
	done := make(chan struct{})
	go func() { defer close(done); fn() }()
	<-done
}
func (f *fake) run(fn func(T)) (said string) {
	f.part(func() { fn(f) })
	for _, c := range slices.Backward(f.cleanup) {
		f.part(c)
	}
	return f.text.String()
}

func TestUntil(t *testing.T) {
	n := 0
	Until(t, Patience, "three", func() bool { n++; return n == 3 })
	f := &fake{}
	if said := f.run(func(t T) { Until(t, time.Millisecond, "rain", func() bool { return false }) }); !f.failed || !strings.Contains(said, "in vain for rain") {
		t.Errorf("failed %v: %s", f.failed, said)
	}
}

func TestProc(t *testing.T) {
	before := len(FDs(os.Getpid()))
	l, err := net.Listen("tcp", Address(t))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if fds := FDs(os.Getpid()); len(fds) <= before || !strings.Contains(FDKinds(fds), "socket 1") {
		t.Errorf("%d descriptors, then %d: %s", before, len(fds), FDKinds(fds))
	}
	cmd := exec.Command("sleep", "60")
	cmd.Env = []string{"MARK=" + t.TempDir()}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := cmd.Process.Pid
	if !slices.Contains(Children(os.Getpid()), pid) {
		t.Errorf("child %d is not in %v", pid, Children(os.Getpid()))
	}
	Until(t, Patience, "its environment", func() bool { return slices.Equal(WithVariable(cmd.Env[0]), []int{pid}) })
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if len(FDs(pid)) != 0 || RestOf(pid).Threads != 0 {
		t.Errorf("a process that is gone: %v %+v", FDs(pid), RestOf(pid))
	}
	if r := RestOf(os.Getpid()); r.Threads == 0 || r.RSS == 0 || r.WakeUps == 0 {
		t.Errorf("%+v", r)
	}
}

const noTOML = "[listener.web]\naddress = %q\n[pool.web]\ncommand = [%q]\nlisteners = [\"web\"]\n"

// A daemon that a test forgets is stopped, and its directory is gone.
func TestForgottenDaemon(t *testing.T) {
	var d *Daemon
	f := &fake{}
	said := f.run(func(t T) {
		d = New(t)
		d.Configure(fmt.Sprintf(noTOML, Address(t), Program(t, "cmd/worker")))
		d.Start()
	})
	if f.failed || !d.Exited() || d.state.ExitCode() != 0 {
		t.Errorf("failed %v, ended %v: %s", f.failed, d.state, said)
	}
	if _, err := os.Stat(d.Dir); err == nil {
		t.Errorf("%s is still there", d.Dir)
	}
}

// A test that fails shows the log, and leaves nothing.
func TestFailedDaemon(t *testing.T) {
	var d *Daemon
	f := &fake{}
	said := f.run(func(t T) {
		d = New(t)
		d.Configure(fmt.Sprintf(noTOML, Address(t), Program(t, "cmd/worker")))
		d.Start()
		t.Fatalf("for a test")
	})
	if !f.failed || !strings.Contains(said, "master ready") || len(d.left()) != 0 {
		t.Errorf("left %v, said %s", d.left(), said)
	}
}

// A daemon that does not come up ends the test, with the reason.
func TestNoDaemon(t *testing.T) {
	f := &fake{}
	said := f.run(func(t T) {
		d := New(t)
		d.Configure("nonsense")
		d.Start()
	})
	if !f.failed || !strings.Contains(said, "the daemon ended") || !strings.Contains(said, "supervisord.toml:1") {
		t.Errorf("said %s", said)
	}
}

// A process that outlives its master is found.
func TestLeftProcess(t *testing.T) {
	f := &fake{}
	said := f.run(func(t T) {
		d := New(t)
		d.Configure(fmt.Sprintf(noTOML, Address(t), Program(t, "cmd/worker")))
		d.Start()
		cmd := exec.Command("sleep", "60")
		cmd.Env = d.Env
		if err := cmd.Start(); err != nil {
			t.Fatalf("%v", err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
		Until(t, Patience, "the mark", func() bool { return slices.Contains(d.left(), cmd.Process.Pid) })
		d.Stop()
	})
	if !f.failed || !strings.Contains(said, "sleep 60") {
		t.Errorf("said %s", said)
	}
}
