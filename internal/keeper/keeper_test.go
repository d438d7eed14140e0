//go:build linux

package keeper

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
	"github.com/f72e338e/supervisord/systemd"
)

// The test program is the keeper and its masters, too: role says which.
const role = "KEEPER_TEST_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(role) {
	case "keeper":
		if os.Getenv(Variable) != "" {
			os.Exit(master())
		}
		watchdog, _ := time.ParseDuration(os.Getenv("KEEPER_TEST_WATCHDOG"))
		code, err := Run(Options{Program: os.Args[0], Args: os.Args, Log: os.Stderr, Watchdog: watchdog})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 99
		}
		os.Exit(code)
	}
	os.Exit(m.Run())
}

// master obeys the lines of its standard input, and answers each with one.
func master() int {
	n, err := Kept()
	if err != nil {
		fmt.Println("bad", err)
		return 98
	}
	files, err := systemd.Inherited()
	if err != nil {
		fmt.Println("bad", err)
		return 97
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, forwarded...)
	go func() {
		for sig := range signals {
			fmt.Println("signal", sig)
		}
	}()
	fmt.Println("started", os.Getpid(), os.Getppid(), os.Getenv("LISTEN_FDS") == "", os.Getenv(Variable) == "")
	for line := ""; ; {
		if line, err = readLine(os.Stdin); err != nil {
			return 96
		}
		words := strings.Fields(line)
		switch words[0] {
		case "exit":
			code := 0
			_, _ = fmt.Sscan(words[1], &code)
			return code
		case "crash":
			_ = unix.Kill(os.Getpid(), unix.SIGKILL)
		case "say":
			err = n.Send(words[1:]...)
		case "store":
			fd, _ := unix.MemfdCreate("test", unix.MFD_CLOEXEC)
			_, _ = unix.Write(fd, []byte(words[2]))
			f := fdpass.NewFile(fd)
			err = n.Store(words[1], f)
			_ = f.Close()
		case "remove":
			err = n.Unstore(words[1])
		case "probe":
			var has bool
			has, err = n.HasStore(10 * time.Second)
			words = append(words, fmt.Sprint(has))
		case "files":
			for _, s := range files {
				text := make([]byte, 100)
				size, _ := unix.Pread(s.File.Fd(), text, 0)
				words = append(words, s.Name+"="+string(text[:size]))
			}
		case "child": // that stays when the master dies
			err = exec.Command("sleep", "100").Start()
		case "orphans": // each is left by its parent, and ends
			var out []byte
			out, err = exec.Command("sh", "-c", "i=0; while [ $i -lt "+words[1]+" ]; do (: &); i=$((i+1)); done").CombinedOutput()
			words = append(words, string(out))
		}
		if err != nil {
			words = append(words, err.Error())
		}
		fmt.Println("did", strings.Join(words, " "))
	}
}

// readLine reads no byte more, since the next master goes on behind it.
func readLine(r io.Reader) (string, error) {
	var line []byte
	for b := []byte{0}; ; {
		if _, err := r.Read(b); err != nil {
			return "", err
		}
		if b[0] == '\n' {
			return string(line), nil
		}
		line = append(line, b[0])
	}
}

// rig is a keeper under test.
type rig struct {
	t      *testing.T
	cmd    *exec.Cmd
	in     io.WriteCloser
	lines  chan string
	master int // number of the last master that started
}

func newRig(t *testing.T, prepare ...func(*exec.Cmd)) *rig {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, cmd: exec.Command(self), lines: make(chan string, 100)}
	r.cmd.Env = append(os.Environ(), role+"=keeper", "GORACE=atexit_sleep_ms=0")
	r.cmd.Stderr = os.Stderr
	for _, p := range prepare {
		p(r.cmd)
	}
	if r.in, err = r.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := r.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(r.lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			r.lines <- s.Text()
		}
	}()
	t.Cleanup(func() {
		_ = r.cmd.Process.Kill()
		_ = r.in.Close() // a master that is left reads the end, and exits
		_ = r.cmd.Wait()
	})
	r.started()
	return r
}

func (r *rig) line() string {
	r.t.Helper()
	select {
	case l, ok := <-r.lines:
		if !ok {
			r.t.Fatal("nothing more is said")
		}
		return l
	case <-time.After(30 * time.Second):
		r.t.Fatal("nothing is said")
	}
	return ""
}

// started waits for a master.
func (r *rig) started() {
	r.t.Helper()
	var parent int
	var clean, cleaner bool
	l := r.line()
	if _, err := fmt.Sscanf(l, "started %d %d %t %t", &r.master, &parent, &clean, &cleaner); err != nil || !clean || !cleaner {
		r.t.Fatalf("%q, %v", l, err)
	}
}

// do lets the master do something, and returns what it says.
func (r *rig) do(line string) string {
	r.t.Helper()
	r.tell(line)
	return strings.TrimPrefix(r.line(), "did ")
}

func (r *rig) tell(line string) {
	r.t.Helper()
	if _, err := io.WriteString(r.in, line+"\n"); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) expect(line, answer string) {
	r.t.Helper()
	if got := r.do(line); got != answer {
		r.t.Fatalf("%q: %q, want %q", line, got, answer)
	}
}

// ends waits for the end of the keeper.
func (r *rig) ends(code int) {
	r.t.Helper()
	for range r.lines { // to the end of the output
	}
	_ = r.cmd.Wait()
	if got := r.cmd.ProcessState.ExitCode(); got != code {
		r.t.Fatalf("the keeper exited with %d, want %d", got, code)
	}
}

// TestStore: files are the next master's, under their names, until they are removed.
func TestStore(t *testing.T) {
	r := newRig(t)
	r.expect("probe", "probe true")
	r.expect("say READY=1", "say READY=1")
	r.expect("store a hello", "store a hello")
	r.expect("store b.1 world", "store b.1 world")
	r.expect("store c gone", "store c gone")
	r.expect("remove c", "remove c")
	for range 3 {
		r.tell("crash")
		r.started()
		r.expect("files", "files a=hello b.1=world")
		r.expect("probe", "probe true")
		r.expect("say READY=1", "say READY=1")
	}
	r.expect("say STOPPING=1", "say STOPPING=1")
	r.tell("exit 7")
	r.ends(7)
}

// TestEnds: which ends of a master are the keeper's.
func TestEnds(t *testing.T) {
	for _, test := range []struct {
		name  string
		tell  []string
		last  string
		again bool
		code  int
	}{
		{"before it was ready", nil, "exit 3", false, 3},
		{"as it said", []string{"say READY=1", "say STOPPING=1"}, "exit 0", false, 0},
		{"killed before it was ready", nil, "crash", true, 0},
		{"without a word", []string{"say READY=1"}, "exit 0", true, 0},
		{"killed while it stops", []string{"say READY=1", "say STOPPING=1"}, "crash", true, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			for _, line := range test.tell {
				r.do(line)
			}
			r.tell(test.last)
			if !test.again {
				r.ends(test.code)
				return
			}
			r.started()
		})
	}
}

// TestNeverReady: masters that are killed before any was ready are not started for ever.
func TestNeverReady(t *testing.T) {
	r := newRig(t)
	for range maxUnborn {
		r.tell("crash")
		r.started()
	}
	r.tell("crash")
	r.ends(128 + int(unix.SIGKILL))
}

// TestSignals: the master gets what is sent to the keeper, also the next one; one that
// was told to stop and died before it said that it does is told again.
func TestSignals(t *testing.T) {
	r := newRig(t)
	send := func(sig syscall.Signal) {
		t.Helper()
		if err := r.cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		if got := r.line(); got != "signal "+sig.String() {
			t.Fatalf("%q, and %v was sent", got, sig)
		}
	}
	for range 2 {
		r.do("say READY=1")
		for _, sig := range []syscall.Signal{unix.SIGHUP, unix.SIGUSR1, unix.SIGUSR2, unix.SIGWINCH} {
			send(sig)
		}
		r.tell("crash")
		r.started()
	}
	r.do("say READY=1")
	send(unix.SIGTERM)
	r.tell("crash")
	r.started()
	r.tell("say STATUS=starting")
	if got := []string{r.line(), r.line()}; !slices.Contains(got, "signal terminated") {
		t.Errorf("the next master was told %q", got)
	}
	r.do("say STOPPING=1")
	r.tell("crash")
	r.started()
	r.expect("say STATUS=starting", "say STATUS=starting")
	r.expect("say READY=1", "say READY=1")
}

// TestExecutable: the next master is the program that was ready last, whatever is at
// its path by now.
func TestExecutable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "program")
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, self, 0o700); err != nil {
		t.Fatal(err)
	}
	r := newRig(t, func(cmd *exec.Cmd) { cmd.Path, cmd.Args = path, []string{path} })
	r.do("say READY=1")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("#!/bin/sh\nexit 1\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		r.tell("crash")
		r.started()
		r.do("say READY=1")
	}
}

// TestWatchdog: a master that says nothing is ended, and started again.
func TestWatchdog(t *testing.T) {
	r := newRig(t, func(cmd *exec.Cmd) {
		cmd.Env = append(cmd.Env, "KEEPER_TEST_WATCHDOG=300ms")
		cmd.Stderr = nil // SIGABRT lets Go show all goroutines
	})
	before := r.master
	r.do("say READY=1")
	for range 5 {
		<-time.After(100 * time.Millisecond) // as a master does that lives
		r.do("say WATCHDOG=1")
	}
	if r.started(); r.master == before {
		t.Error("the same master")
	}
}

// TestReaps: whoever loses its parent is the keeper's, and is waited for.
func TestReaps(t *testing.T) {
	r := newRig(t)
	r.do("say READY=1")
	r.do("orphans 100")
	r.noZombies(r.cmd.Process.Pid)
	r.tell("crash")
	r.started()
	r.do("orphans 100")
	r.noZombies(r.cmd.Process.Pid)
}

// noZombies waits until a process has no child but its master.
func (r *rig) noZombies(pid int) {
	r.t.Helper()
	var left []string
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); <-time.After(5 * time.Millisecond) {
		left = nil
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
		for _, task := range tasks {
			text, _ := os.ReadFile(task)
			left = append(left, strings.Fields(string(text))...)
		}
		if len(left) == 1 {
			return
		}
	}
	r.t.Fatalf("children are left: %v", left)
}

// TestFirstProcess: process 1 of a container reaps, and ends with the code of its master.
func TestFirstProcess(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root for a PID namespace")
	}
	r := newRig(t, func(cmd *exec.Cmd) {
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID}
	})
	r.do("say READY=1")
	r.do("orphans 1000")
	r.noZombies(r.cmd.Process.Pid)
	r.tell("crash")
	r.started()
	r.do("say READY=1 STOPPING=1")
	if err := r.cmd.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if got := r.line(); got != "signal terminated" {
		t.Fatal(got)
	}
	r.tell("exit 5")
	r.ends(5)
}

// TestDescriptors: crashes cost the keeper nothing.
func TestDescriptors(t *testing.T) {
	r := newRig(t)
	count := func() int {
		list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", r.cmd.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	crash := func() {
		r.do("say READY=1")
		r.do("store a text")
		r.do("probe")
		r.do("remove a")
		r.tell("crash")
		r.started()
	}
	crash()
	before := count()
	for range 10 {
		crash()
	}
	if after := count(); after != before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
}

// TestSignalBetween: what comes between two masters is the next one's, once it says
// something: before that it would be killed by it.
func TestSignalBetween(t *testing.T) {
	for _, pause := range []time.Duration{0, time.Millisecond, 5 * time.Millisecond, 20 * time.Millisecond} {
		r := newRig(t)
		r.do("say READY=1")
		r.tell("crash")
		<-time.After(pause)
		if err := r.cmd.Process.Signal(unix.SIGTERM); err != nil {
			t.Fatal(err)
		}
		l := r.line()
		if l == "signal terminated" { // the first one was not dead yet
			l = r.line()
		}
		if !strings.HasPrefix(l, "started ") {
			t.Fatal(l)
		}
		r.tell("say STATUS=starting")
		got := []string{r.line(), r.line()}
		if !slices.Contains(got, "signal terminated") {
			t.Errorf("after %v: %q", pause, got)
		}
		r.expect("say STOPPING=1", "say STOPPING=1")
		r.tell("exit 0")
		r.ends(0)
	}
}

// TestCannotStop: where no master can be started any more a stop ends what there is.
func TestCannotStop(t *testing.T) {
	r := newRig(t)
	r.do("say READY=1")
	r.do("child")
	r.tell("crash")
	r.started()
	if err := r.cmd.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-time.After(50 * time.Millisecond) // that it is not sent to a master that exits anyway
	r.tell("exit 3")
	r.ends(1)
}
