package proc

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
)

// The command has 0, 1, 2 and its Files, and no trace of the stage.
func TestDescriptorsAndEnvironment(t *testing.T) {
	noLeaks(t)
	// One that is not close-on-exec in the master must not come through.
	loose, err := unix.Open("/dev/zero", unix.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(loose)
	var files []*fdpass.File
	for i := range 3 {
		fd, err := unix.Open(fmt.Sprintf("/proc/self/%s", []string{"stat", "maps", "status"}[i]), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, fdpass.NewFile(fd))
	}
	defer fdpass.CloseAll(files)
	slices.Reverse(files) // numbers that overlap with the places they go to
	l := me("report", "a", "b c")
	l.Files, l.SetListenPID = append(files, files[0]), true
	l.Env = append(l.Env, "LISTEN_PID=1", "X=y=z")
	r, p := run(t, l)
	self := fmt.Sprintf("/proc/%d/", os.Getpid())
	want := map[string]string{"0": "/dev/null", "2": "/dev/null", "3": self + "status", "4": self + "maps", "5": self + "stat", "6": self + "status"}
	for fd, target := range r.FDs {
		t.Logf("fd %s: %s", fd, target)
	}
	for fd, target := range want {
		if r.FDs[fd] != target {
			t.Errorf("fd %s is %q, want %q", fd, r.FDs[fd], target)
		}
	}
	if !strings.HasPrefix(r.FDs["1"], "pipe:") || len(r.FDs) != 7 {
		t.Errorf("descriptors: %v", r.FDs)
	}
	if env := []string{"PROC_TEST_ROLE=report", "GORACE=atexit_sleep_ms=0", "X=y=z", fmt.Sprintf("LISTEN_PID=%d", p.PID())}; !slices.Equal(r.Env, env) {
		t.Errorf("environment: %q", r.Env)
	}
	if !slices.Equal(r.Args, l.Command) || r.PID != p.PID() || r.PGID != p.PID() || r.SID != p.PID() {
		t.Errorf("args %q, pid %d, pgid %d, sid %d", r.Args, r.PID, r.PGID, r.SID)
	}
}

// Of a command that opens nothing itself: what /proc says from outside.
func TestDescriptorsFromOutside(t *testing.T) {
	noLeaks(t)
	p := mustStart(t, keep(Launch{Command: []string{"sleep", "3600"}}))
	if err := p.Started(); err != nil {
		t.Fatal(err)
	}
	names, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.PID()))
	if err != nil || len(names) != 3 {
		t.Errorf("descriptors: %v, %v", names, err)
	}
}

func TestSignalsAreReset(t *testing.T) {
	_, out := withOutput(t, me("ignoring"))
	text, err := io.ReadAll(out)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"SigIgn", "SigBlk", "SigCgt"} {
		if !strings.Contains(string(text), name+":\t0000000000000000\n") {
			t.Errorf("%s is not empty:\n%s", name, text)
		}
	}
}

func TestSettings(t *testing.T) {
	nice, oom := 5, 500
	dir := publicDir(t)
	l := me("report")
	l.Nice, l.OOMScoreAdj, l.Scheduling, l.CPUAffinity, l.NoNewPrivs, l.Dir = &nice, &oom, "batch", []int{0}, true, dir
	l.Umask, l.Slice = 0o027, 250*time.Microsecond
	l.Limits = []Limit{{unix.RLIMIT_CORE, 0, 0}}
	r, _ := run(t, l)
	own, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	if r.Slice != l.Slice && own.Runtime != 0 { // 0: the kernel has one slice for all
		t.Errorf("slice %v", r.Slice)
	}
	if r.Nice != 5 || r.OOM != "500" || r.Policy != unix.SCHED_BATCH || r.Status["Cpus_allowed_list"] != "0" ||
		r.Status["NoNewPrivs"] != "1" || r.Dir != dir || r.Umask != 0o027 || r.Limits[unix.RLIMIT_CORE] != (unix.Rlimit{}) {
		t.Errorf("%+v", r)
	}
}

// Limits that the stage itself, a Go program, could not live with.
func TestTightLimits(t *testing.T) {
	l := keep(Launch{Command: []string{"/bin/sh", "-c", "ulimit -v; ulimit -n"}})
	l.Limits = []Limit{{unix.RLIMIT_AS, 64 << 20, 64 << 20}, {unix.RLIMIT_NOFILE, 9, 10}, {unix.RLIMIT_NPROC, 1, 1}}
	_, out := withOutput(t, l)
	text, err := io.ReadAll(out)
	if err != nil || string(text) != "65536\n9\n" {
		t.Errorf("%q, %v", text, err)
	}
}

// Go raises its own soft limit of descriptors; the command has the master's.
func TestSoftLimitIsPutBack(t *testing.T) {
	_, out := withOutput(t, keep(Launch{Command: []string{"/bin/sh", "-c", "ulimit -Sn; ulimit -Hn"}}))
	text, _ := io.ReadAll(out)
	direct, err := os.ReadFile("/proc/1/limits")
	if err != nil {
		t.Skip("cannot read the limits of process 1")
	}
	t.Logf("command: %q; process 1: %s", text, lines(direct)[7])
}

func TestDirFileAndPinnedExecutable(t *testing.T) {
	noLeaks(t)
	dir := publicDir(t)
	text, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	old, moved := filepath.Join(dir, "web"), filepath.Join(dir, "web.old")
	if err := os.WriteFile(old, text, 0o755); err != nil {
		t.Fatal(err)
	}
	open := func(path string, flags int) *fdpass.File {
		fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		f := fdpass.NewFile(fd)
		t.Cleanup(func() { _ = f.Close() })
		return f
	}
	l := me("report")
	l.Command = []string{"./web", "x"}
	l.Exec, l.DirFile = open(old, unix.O_PATH), open(dir, unix.O_PATH|unix.O_DIRECTORY)
	if err := os.Rename(old, moved); err != nil {
		t.Fatal(err)
	}
	r, _ := run(t, l)
	if r.Exe != moved || r.Dir != dir || r.Args[0] != "./web" || len(r.FDs) != 3 {
		t.Errorf("%+v", r)
	}
	script := filepath.Join(dir, "script")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	l.Exec = open(script, unix.O_PATH)
	wantStageError(t, l, StepExec, syscall.ENOEXEC, "cannot execute ./web: it is a script, which cannot be executed through a descriptor: exec format error")
}

func TestStageErrors(t *testing.T) {
	noLeaks(t)
	dir := publicDir(t)
	write := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	plain, odd, lost := write("plain", "x", 0o644), write("odd", "\x01\x02", 0o755), write("lost", "#!/no/such\n", 0o755)
	command := func(argv ...string) Launch {
		return keep(Launch{Command: argv, Dir: dir, Env: []string{"PATH=/a:" + dir}})
	}
	wantStageError(t, command("./web"), StepExec, syscall.ENOENT, "cannot execute ./web: no such file or directory")
	wantStageError(t, command("web"), StepExec, syscall.ENOENT, "cannot execute web: no such file or directory (not found in PATH=/a:"+dir+")")
	wantStageError(t, command("plain"), StepExec, syscall.EACCES, "cannot execute plain: permission denied (the user must have execute permission on the file and search permission on its directories)")
	wantStageError(t, command(plain), StepExec, syscall.EACCES, "cannot execute "+plain+": permission denied (the user must have execute permission on the file and search permission on its directories)")
	wantStageError(t, command(odd), StepExec, syscall.ENOEXEC, "cannot execute "+odd+": exec format error (a binary for another machine, or a script without a #! line)")
	wantStageError(t, command(lost), StepExec, syscall.ENOENT, "cannot execute "+lost+": no such file or directory (the file is there, its interpreter is not: see its #! line, or file(1))")
	l := command("true")
	l.Dir = "/no/such"
	wantStageError(t, l, StepDirectory, syscall.ENOENT, "cannot enter the working directory /no/such: no such file or directory")
	l = command("true")
	l.Scheduling = "fast"
	wantStageError(t, l, StepScheduling, syscall.EINVAL, "cannot use the scheduling policy fast: invalid argument (other, batch or idle)")
	l = command("true")
	l.Capabilities = []string{"CAP_FLY"}
	wantStageError(t, l, StepCapabilities, syscall.EINVAL, "cannot grant the capability CAP_FLY: invalid argument (there is none of that name)")
	l = command("/bin/true")
	l.Limits = []Limit{{unix.RLIMIT_NOFILE, 9, 8}}
	wantStageError(t, l, StepLimits, syscall.EINVAL, "cannot set the limit nofile to 9:8: invalid argument")
	if os.Getuid() != 0 {
		l = command("true")
		l.UID = 0
		l.Groups = []int{4}
		wantStageError(t, l, StepGroups, syscall.EPERM, "cannot set the supplementary groups [4]: operation not permitted (the master does not run as root)")
		l.Groups = []int{}
		if groups, _ := os.Getgroups(); len(groups) == 0 {
			wantStageError(t, l, StepUser, syscall.EPERM, "cannot change to user 0: operation not permitted (the master does not run as root)")
		}
	}
}

func TestStartErrors(t *testing.T) {
	noLeaks(t)
	closed := fdpass.NewFile(-1)
	for _, c := range []struct {
		l    Launch
		want error
	}{
		{Launch{}, unix.EINVAL},
		{Launch{Command: []string{"a\x00b"}}, unix.EINVAL},
		{Launch{Command: []string{"a"}, Env: []string{strings.Repeat("x", maxOrder)}}, unix.E2BIG},
		{Launch{Command: []string{"a"}, Stdout: closed}, unix.EBADF},
		{Launch{Command: []string{"a"}, Files: []*fdpass.File{closed}}, unix.EBADF},
		{Launch{Command: []string{"a"}, Exec: closed}, unix.EBADF},
	} {
		if _, err := Start(c.l); !errors.Is(err, c.want) || !strings.HasPrefix(err.Error(), "cannot start ") {
			t.Errorf("got %v, want %v", err, c.want)
		}
	}
}

func TestLargeEnvironment(t *testing.T) {
	l := me("report")
	for i := range 10 { // each below MAX_ARG_STRLEN, together beyond the socket's buffer
		l.Env = append(l.Env, fmt.Sprintf("BIG%d=%s", i, strings.Repeat("x", 100_000)))
	}
	r, _ := run(t, l)
	if !slices.Equal(r.Env, l.Env) {
		t.Error("the environment is another")
	}
}

// Strings that are no UTF-8 arrive as they are.
func TestBytesAreKept(t *testing.T) {
	_, out := withOutput(t, keep(Launch{Command: []string{"/bin/sh", "-c", `printf "%s %s" "$X" "$1"`, "sh", "b\xfe"}, Env: []string{"X=a\xff"}}))
	text, err := io.ReadAll(out)
	if err != nil || string(text) != "a\xff b\xfe" {
		t.Errorf("%q, %v", text, err)
	}
}

func TestStageKilled(t *testing.T) {
	noLeaks(t)
	l := me("sleep")
	l.Env = append(l.Env, strings.Repeat("x", 4<<20)) // E2BIG at the execve, so it never runs
	p := mustStart(t, l)
	if err := p.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	var e *StageError
	if err := p.Started(); !errors.As(err, &e) || e.Step != StepStage && e.Errno != unix.E2BIG {
		t.Errorf("got %v", err)
	}
}

func BenchmarkStart(b *testing.B) {
	for b.Loop() {
		p, err := Start(keep(Launch{Command: []string{"/bin/true"}, Env: os.Environ()}))
		if err != nil {
			b.Fatal(err)
		}
		if err := p.Started(); err != nil {
			b.Fatal(err)
		}
		_, _ = p.Wait()
		_ = p.Close()
	}
}

// BenchmarkDirect is the same without the stage, to compare.
func BenchmarkDirect(b *testing.B) {
	for b.Loop() {
		p, err := os.StartProcess("/bin/true", []string{"true"}, &os.ProcAttr{Env: os.Environ()})
		if err != nil {
			b.Fatal(err)
		}
		_, _ = p.Wait()
	}
}
