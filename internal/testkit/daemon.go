package testkit

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/f72e338e/supervisord/internal/api"
)

// raceReport begins what the race detector writes.
const raceReport = "WARNING: DATA RACE"

// quickExit takes away the second that a program with the race detector waits
// before it ends.
const quickExit = "GORACE=atexit_sleep_ms=0"

// Daemon is a master under test.
type Daemon struct {
	Dir     string // its own: configuration, sockets, logs; removed at the end
	Socket  string // control socket
	File    string // configuration file
	Program string // of the daemon and of its commands
	PID     int    // once it was started
	Env     []string
	Keeper  bool // start it as users do, with a parent that starts it again; PID is that one's

	t      T
	state  *os.ProcessState // valid once exited is closed
	exited chan struct{}
	client *api.Client
}

// New prepares a daemon. It is stopped, and its directory removed, when the test
// has ended; then its log is shown if the test failed.
func New(t T) *Daemon {
	t.Helper()
	return NewWith(t, Program(t, "cmd/supervisord"))
}

// NewWith is New with another program.
func NewWith(t T, program string) *Daemon {
	t.Helper()
	dir, err := os.MkdirTemp("", "sd-") // short: a Unix path has at most 107 bytes
	if err != nil {
		t.Fatalf("no directory for a daemon: %v", err)
	}
	d := &Daemon{Dir: dir, Socket: filepath.Join(dir, "control.sock"), File: filepath.Join(dir, "supervisord.toml"), Program: program, t: t}
	// TMPDIR is handed on to workers, so it marks every process of this daemon.
	d.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, d.mark(), "XDG_RUNTIME_DIR=" + dir, "LANG=C.UTF-8", quickExit}
	t.Cleanup(d.cleanUp)
	return d
}

func (d *Daemon) mark() string { return "TMPDIR=" + d.Dir }

// Path returns a path in the daemon's directory.
func (d *Daemon) Path(name string) string { return filepath.Join(d.Dir, name) }

// Write writes a file in the daemon's directory.
func (d *Daemon) Write(name, text string) {
	d.t.Helper()
	if err := os.WriteFile(d.Path(name), []byte(text), 0o600); err != nil {
		d.t.Fatalf("%v", err)
	}
}

// Configure writes the configuration file.
func (d *Daemon) Configure(toml string) {
	d.t.Helper()
	d.Write(filepath.Base(d.File), toml)
}

// Start runs the daemon with its configuration file, and waits until it is ready.
func (d *Daemon) Start() {
	d.t.Helper()
	d.Launch("run", "-c", d.File, "--socket", d.Socket)
	d.WaitReady()
}

// Launch runs the program with these arguments and does not wait.
func (d *Daemon) Launch(args ...string) {
	d.t.Helper()
	if !d.Keeper && len(args) > 0 && args[0] == "run" {
		args = append([]string{"run", "--no-keeper"}, args[1:]...)
	}
	cmd := exec.Command(d.Program, args...)
	cmd.Dir, cmd.Env = d.Dir, d.Env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a ^C is for the test
	cmd.Stdout, cmd.Stderr = d.append("stdout"), d.append("stderr")
	defer func() { _ = cmd.Stdout.(*os.File).Close(); _ = cmd.Stderr.(*os.File).Close() }()
	if err := cmd.Start(); err != nil {
		d.t.Fatalf("cannot start %s: %v", d.Program, err)
	}
	exited := make(chan struct{})
	d.PID, d.exited, d.client = cmd.Process.Pid, exited, nil
	go func() { // ends with the daemon, and cleanUp sees to that
		_ = cmd.Wait()
		d.state = cmd.ProcessState
		close(exited)
	}()
}

// append opens a file for the daemon's output. Files, not pipes: nobody has to
// read them, and a worker that holds one holds up nobody.
func (d *Daemon) append(name string) *os.File {
	d.t.Helper()
	f, err := os.OpenFile(d.Path(name), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		d.t.Fatalf("%v", err)
	}
	return f
}

// Log returns what the daemon wrote to stderr so far: its log lines.
func (d *Daemon) Log() string {
	text, _ := os.ReadFile(d.Path("stderr"))
	return string(text)
}

// Output returns what the daemon wrote to stdout so far: its workers' lines.
func (d *Daemon) Output() string {
	text, _ := os.ReadFile(d.Path("stdout"))
	return string(text)
}

// WaitLog waits until the log has the text.
func (d *Daemon) WaitLog(text string) {
	d.t.Helper()
	d.until("the log line "+text, func() bool { return strings.Contains(d.Log(), text) })
}

// Exited reports whether the daemon has ended.
func (d *Daemon) Exited() bool {
	select {
	case <-d.exited:
		return true
	default:
		return false
	}
}

// until is Until that also ends when the daemon does.
func (d *Daemon) until(what string, cond func() bool) {
	d.t.Helper()
	ended := false
	if !Eventually(d.t, Patience, func() bool { ended = d.Exited(); return cond() || ended }) {
		d.t.Fatalf("waited %v in vain for %s", Patience, what)
	}
	if ended && !cond() {
		d.t.Fatalf("the daemon ended (%v) before %s", d.state, what)
	}
}

// WaitReady waits until the master runs and every pool has what it should have.
func (d *Daemon) WaitReady() api.Status {
	d.t.Helper()
	return d.Await("a master that is ready", func(s api.Status) bool {
		if s.Master.State != "running" {
			return false
		}
		for _, p := range s.Pools {
			if p.Ready < p.Desired || p.Rollout != nil {
				return false
			}
		}
		return true
	})
}

// WaitSettled waits until the daemon is ready and all old workers have gone.
func (d *Daemon) WaitSettled() api.Status {
	d.t.Helper()
	return d.Await("a settled master", func(s api.Status) bool {
		for _, p := range s.Pools {
			if p.Ready != p.Desired || len(p.Workers) != p.Desired || p.Rollout != nil {
				return false
			}
		}
		return s.Master.State == "running"
	})
}

// Await waits for a status that fits, and returns it.
func (d *Daemon) Await(what string, cond func(api.Status) bool) api.Status {
	d.t.Helper()
	var last api.Status
	d.until(what, func() bool {
		s, err := d.status()
		if err != nil {
			return false
		}
		last = s
		return cond(s)
	})
	return last
}

// Status asks for the status.
func (d *Daemon) Status() api.Status {
	d.t.Helper()
	s, err := d.status()
	if err != nil {
		d.t.Fatalf("no status: %v", err)
	}
	return s
}

func (d *Daemon) status() (api.Status, error) {
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	c, err := d.dial(ctx)
	if err != nil {
		return api.Status{}, err
	}
	return c.Status(ctx)
}

func (d *Daemon) dial(ctx context.Context) (*api.Client, error) {
	if d.client != nil {
		return d.client, nil
	}
	c, err := api.Dial(ctx, []string{d.Socket})
	if err == nil {
		d.client = c
	}
	return c, err
}

// Client returns a client of the control API.
func (d *Daemon) Client() *api.Client {
	d.t.Helper()
	c, err := d.dial(d.t.Context())
	if err != nil {
		d.t.Fatalf("%v", err)
	}
	return c
}

// HangUp closes the test's own connection to the master; the next question opens
// another.
func (d *Daemon) HangUp() {
	if d.client != nil {
		d.client.Close()
		d.client = nil
	}
}

// PIDs returns the processes of a pool's ready workers, by slot.
func PIDs(s api.Status, pool string) map[int]int {
	pids := map[int]int{}
	for _, p := range s.Pools {
		for _, w := range p.Workers {
			if p.Name == pool && w.State == "ready" && w.PID != nil {
				pids[w.Slot] = *w.PID
			}
		}
	}
	return pids
}

// Run runs a command against this daemon.
func (d *Daemon) Run(args ...string) Output {
	d.t.Helper()
	return Exec(d.t, Command{Path: d.Program, Args: append([]string{"--socket", d.Socket}, args...), Env: d.Env, Dir: d.Dir})
}

// Must runs a command that has to succeed.
func (d *Daemon) Must(args ...string) Output {
	d.t.Helper()
	out := d.Run(args...)
	if out.Code != 0 {
		d.t.Fatalf("%v", out)
	}
	return out
}

// Within fails the test when a command took longer.
func (o Output) Within(t T, limit time.Duration) Output {
	t.Helper()
	if o.Took > limit {
		t.Errorf("took longer than %v: %v", limit, o)
	}
	return o
}

func (d *Daemon) String() string { return fmt.Sprintf("daemon %d in %s", d.PID, d.Dir) }
