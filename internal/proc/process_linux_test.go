package proc

import (
	"errors"
	"io"
	"os"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
)

func TestExits(t *testing.T) {
	noLeaks(t)
	for _, c := range []struct {
		code int
		sig  unix.Signal
		text string
	}{{0, 0, "exit status 0"}, {3, 0, "exit status 3"}, {0, unix.SIGTERM, "signal SIGTERM"}, {0, unix.SIGKILL, "signal SIGKILL"}} {
		l := me("exit", strconv.Itoa(c.code))
		if c.sig != 0 {
			l = keep(Launch{Command: []string{"sleep", "3600"}})
		}
		p := mustStart(t, l)
		if err := p.Started(); err != nil {
			t.Fatal(err)
		}
		if c.sig != 0 {
			if err := p.Signal(c.sig); err != nil {
				t.Fatal(err)
			}
		}
		exit, err := p.Wait()
		if err != nil || exit.Code != c.code || exit.Signal != int(c.sig) || !exit.Known || exit.String() != c.text || exit.MaxRSS < 1<<16 {
			t.Errorf("%+v (%s), %v", exit, exit, err)
		}
		if again, err := p.Wait(); again != exit || err != nil {
			t.Errorf("second Wait: %+v, %v", again, err)
		}
		if err := p.Signal(unix.SIGTERM); err != unix.ESRCH {
			t.Errorf("signal to a reaped process: %v", err)
		}
		if err := p.KillTree(); err != unix.ESRCH {
			t.Errorf("KillTree of a reaped process: %v", err)
		}
	}
}

func TestCoreDump(t *testing.T) {
	l := keep(Launch{Command: []string{"/bin/sh", "-c", "kill -ABRT $$"}})
	l.Limits = []Limit{{unix.RLIMIT_CORE, 0, 0}}
	p := mustStart(t, l)
	if exit, err := p.Wait(); err != nil || exit.Signal != int(unix.SIGABRT) {
		t.Errorf("%+v, %v", exit, err)
	}
}

// What a worker leaves behind in its group goes with it.
func TestWaitKillsLeftovers(t *testing.T) {
	noLeaks(t)
	p, out := withOutput(t, me("tree", "go"))
	child, _ := strconv.Atoi(readLine(t, out))
	if _, err := p.Wait(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the grandchild is gone", func() bool { return gone(child) })
}

func TestKillTree(t *testing.T) {
	noLeaks(t)
	p, out := withOutput(t, me("tree", "stay"))
	child, _ := strconv.Atoi(readLine(t, out))
	if err := p.KillTree(); err != nil {
		t.Fatal(err)
	}
	if exit, err := p.Wait(); err != nil || exit.Signal != int(unix.SIGKILL) {
		t.Errorf("%+v, %v", exit, err)
	}
	eventually(t, "the grandchild is gone", func() bool { return gone(child) })
}

// gone: reaped, or a zombie that whoever adopts orphans here has not reaped yet.
func gone(pid int) bool {
	_, _, state, _, err := Stat(pid)
	return err != nil || state == 'Z'
}

func TestCloseEndsWait(t *testing.T) {
	noLeaks(t)
	p := mustStart(t, me("sleep"))
	q, err := Adopt(p.PID(), dup(t, p.PIDFile()))
	if err != nil {
		t.Fatal(err)
	}
	result := make(chan error)
	go func() {
		_, err := q.Wait()
		result <- err
	}()
	if err := q.Close(); err != nil {
		t.Error(err)
	}
	if err := <-result; !errors.Is(err, fdpass.ErrClosed) {
		t.Errorf("Wait: %v", err)
	}
	if err := q.Signal(0); !errors.Is(err, fdpass.ErrClosed) {
		t.Errorf("Signal: %v", err)
	}
	if q.PIDFile().Fd() != -1 {
		t.Error("PIDFile still lends")
	}
}

func dup(t *testing.T, f *fdpass.File) *fdpass.File {
	t.Helper()
	d, err := f.Dup()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// A child that an earlier image of this process started.
func TestAdoptChild(t *testing.T) {
	noLeaks(t)
	p, err := Start(me("exit", "7"))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	q, err := Adopt(p.PID(), dup(t, p.PIDFile()))
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	if err := q.Started(); err != nil {
		t.Error(err)
	}
	if exit, err := q.Wait(); err != nil || exit.Code != 7 || !exit.Known {
		t.Errorf("%+v, %v", exit, err)
	}
	_ = p.Started()
}

func TestAdoptStranger(t *testing.T) {
	noLeaks(t)
	for _, kill := range []bool{false, true} {
		role := "exit"
		if kill {
			role = "sleep"
		}
		_, out := withOutput(t, me("parent", "9", role))
		pid, err := strconv.Atoi(readLine(t, out))
		if err != nil {
			t.Fatal(err)
		}
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			if !kill && err == unix.ESRCH {
				continue // it was too fast
			}
			t.Fatal(err)
		}
		q, err := Adopt(pid, fdpass.NewFile(fd))
		if err != nil {
			t.Fatal(err)
		}
		if q.child {
			t.Error("taken for a child")
		}
		if kill {
			if err := q.KillTree(); err != nil {
				t.Error(err)
			}
		}
		exit, err := q.Wait()
		if err != nil {
			t.Error(err)
		}
		if !exit.Known {
			t.Logf("kill %v: this kernel does not tell the exit", kill)
		} else if kill && exit.Signal != int(unix.SIGKILL) || !kill && exit.Code != 9 {
			t.Errorf("%+v", exit)
		}
		_ = q.Close()
	}
}

func TestAdoptErrors(t *testing.T) {
	noLeaks(t)
	p := mustStart(t, me("sleep"))
	if _, err := Adopt(p.PID()+1, dup(t, p.PIDFile())); !errors.Is(err, unix.ESRCH) {
		t.Errorf("another process: %v", err)
	}
	null, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Adopt(1, fdpass.NewFile(null)); !errors.Is(err, unix.EINVAL) {
		t.Errorf("no pidfd: %v", err)
	}
	if _, err := Adopt(1, fdpass.NewFile(-1)); !errors.Is(err, unix.EBADF) {
		t.Errorf("closed: %v", err)
	}
}

// Many at once, in few threads.
func TestMany(t *testing.T) {
	noLeaks(t)
	const n = 40
	results := make(chan Exit, n)
	var all []*Process
	for range n {
		p := mustStart(t, me("sleep"))
		all = append(all, p)
		go func() {
			exit, _ := p.Wait()
			results <- exit
		}()
	}
	for _, p := range all {
		if err := p.Started(); err != nil {
			t.Error(err)
		}
	}
	if tasks, err := os.ReadDir("/proc/self/task"); err != nil || len(tasks) > n/2+10 {
		t.Errorf("%d threads, %v", len(tasks), err)
	}
	for _, p := range all {
		if err := p.Signal(unix.SIGKILL); err != nil {
			t.Error(err)
		}
	}
	for range n {
		if exit := <-results; exit.Signal != int(unix.SIGKILL) {
			t.Errorf("%+v", exit)
		}
	}
}

func TestStat(t *testing.T) {
	p, out := withOutput(t, me("sleep"))
	if got := readLine(t, out); got != "up" {
		t.Fatal(got)
	}
	rss, cpu, state, start, err := Stat(p.PID())
	if err != nil || rss < 1<<18 || cpu < 0 || cpu > 60 || start == 0 || state == 'Z' {
		t.Errorf("%d, %f, %c, %d, %v", rss, cpu, state, start, err)
	}
	if err := p.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is stopped", func() bool { _, _, state, _, _ := Stat(p.PID()); return state == 'T' })
	_ = p.KillTree()
	_, _ = p.Wait()
	_, _ = io.Copy(io.Discard, out)
	if _, _, _, _, err := Stat(p.PID()); !errors.Is(err, unix.ESRCH) {
		t.Errorf("reaped: %v", err)
	}
	_, _, state, _, err = parseStat([]byte("1 (a) b) S 1" + " 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0"))
	if err != nil || state != 'S' {
		t.Errorf("a name with a parenthesis: %c, %v", state, err)
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("1 (a) b) S 1 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0"))
	f.Add([]byte(")"))
	f.Fuzz(func(t *testing.T, text []byte) { _, _, _, _, _ = parseStat(text) })
}
