package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/f72e338e/supervisord/internal/testkit"
)

const (
	startPatience = 20 * time.Second
	stopPatience  = 15 * time.Second
	askEvery      = 5 * time.Millisecond
)

// process is a program that was started, with what it forked.
type process struct {
	cmd    *exec.Cmd
	log    string // file with all that it wrote
	ended  chan struct{}
	family []grip
}

// environment is that of every server: nothing of ours gets in, GOMAXPROCS least
// of all.
func environment(dir string, more ...string) []string {
	return append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "TMPDIR=" + dir, "XDG_RUNTIME_DIR=" + dir, "LANG=C.UTF-8"}, more...)
}

// launcher is a goroutine that starts the programs, all on one thread of its own.
// Pdeathsig (see ownSession) goes by the thread, not by the process, and threads
// end before the program does: without this all servers of a case were stopped at
// once, now and then. syscall.SysProcAttr
type launcher chan func()

func newLauncher() launcher {
	l := make(launcher)
	go func() { // ends with close
		runtime.LockOSThread()
		for fn := range l {
			fn()
		}
	}()
	return l
}

// do runs fn on the thread and waits for it.
func (l launcher) do(fn func() error) error {
	ran := make(chan error)
	l <- func() { ran <- fn() }
	return <-ran
}

// launch starts a program that works in dir. It borrows files, which become the
// program's descriptors from 3 on. The caller stops the process.
func (l launcher) launch(dir string, env []string, files []*os.File, program string, args ...string) (*process, error) {
	out, err := os.CreateTemp(dir, "log-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = out.Close() }()
	cmd := exec.Command(program, args...)
	cmd.Dir, cmd.Env, cmd.ExtraFiles = dir, env, files
	cmd.Stdout, cmd.Stderr = out, out
	ownSession(cmd)
	if err := l.do(cmd.Start); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, log: out.Name(), ended: make(chan struct{})}
	go func() { // ends with the program, and stop sees to that
		_ = cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// children are the processes that it forked and that live.
func (p *process) children() []int { return testkit.Children(p.pid()) }

// output is what the process and its children wrote so far.
func (p *process) output() string {
	text, _ := os.ReadFile(p.log)
	return string(text)
}

// saysReady reports whether the line "ready" was written.
func (p *process) saysReady() bool { return slices.Contains(strings.Split(p.output(), "\n"), "ready") }

// until waits for cond. Errors: the process ended, it took too long, ctx's.
func (p *process) until(ctx context.Context, what string, cond func() bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startPatience, fmt.Errorf("waited %v in vain for %s", startPatience, what))
	defer cancel()
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-p.ended:
			return fmt.Errorf("%s ended (%v) before %s: %s", filepath.Base(p.cmd.Path), p.cmd.ProcessState, what, lastLines(p.output()))
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// stop asks the process to end, waits, and kills what is left of it and of its
// children.
func (p *process) stop() {
	for _, pid := range p.children() {
		p.family = append(p.family, hold(pid))
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	timer := time.NewTimer(stopPatience)
	defer timer.Stop()
	select {
	case <-p.ended:
	case <-timer.C:
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
	for _, g := range p.family {
		g.kill()
	}
	p.family = nil
}

// lastLines is the end of a log, on one line.
func lastLines(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-3):], " | ")
}

// freeAddress returns a port of 127.0.0.1 that nobody listens on, below the range
// of automatic ports, from which the load client takes its own.
func freeAddress() (address string, port int, err error) {
	for range 1000 {
		port = 10000 + rand.IntN(20000)
		address = fmt.Sprintf("127.0.0.1:%d", port)
		l, err := net.Listen("tcp", address)
		if err == nil {
			return address, port, l.Close()
		}
	}
	return "", 0, fmt.Errorf("no free port found")
}
