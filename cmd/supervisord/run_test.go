package main

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/f72e338e/supervisord/internal/testkit"
)

func TestRunFlags(t *testing.T) {
	d := testkit.New(t)
	address, path := testkit.Address(t), d.Path("web.sock")
	d.Launch("run", "--socket", d.Socket, "--listen", address, "--listen", "unix:"+path, "--workers", "2", "--", testkit.Program(t, "cmd/worker"))
	s := d.WaitReady()
	if len(s.Pools) != 1 || s.Pools[0].Name != "main" || s.Pools[0].Ready != 2 || len(s.Listeners) != 2 || s.Master.Config != "" {
		t.Errorf("%+v", s)
	}
	if body := get(t, address); !strings.Contains(body, "pool=main") {
		t.Errorf("answer: %q", body)
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	expect(t, d.Run("reload"), exitUsage, "without a configuration file")
	d.Stop()
	if _, err := net.Dial("unix", path); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("the path of a listener is left: %v", err)
	}
}

func TestRunBadFlags(t *testing.T) {
	d := testkit.New(t)
	for _, test := range []struct {
		args []string
		says string
	}{
		{[]string{"--workers", "none"}, "--workers"},
		{[]string{"--listen", "127.0.0.1"}, "--listen"},
		{[]string{"--protocol", "smoke"}, "--protocol"},
	} {
		expect(t, d.Run(append(append([]string{"run"}, test.args...), "--", "true")...), exitConfig, test.says)
	}
}

// A command that cannot be started, or an address that is taken, is said at once.
func TestRunFails(t *testing.T) {
	d := testkit.New(t)
	l, err := net.Listen("tcp", testkit.Address(t))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	address := l.Addr().String()
	out := d.Run("run", "--listen", address, "--", testkit.Program(t, "cmd/worker"))
	expect(t, out, exitFailed, "cannot start", "cannot bind tcp "+address, "address already in use", "held by ")
}

func TestTwoMasters(t *testing.T) {
	w := web{address: testkit.Address(t), workers: 1}
	d := start(t, w)
	w.address = testkit.Address(t)
	d.Write("second.toml", w.toml(t))
	expect(t, d.Run("run", "-c", d.Path("second.toml")), exitFailed, fmt.Sprintf("another supervisord (pid %d)", d.PID), d.Socket)
	expect(t, d.Run("status"), 0, "running") // and the first one is not harmed
	d.Stop()
}

// [control] socket names the socket for run and for the commands.
func TestControlSocketOfTheFile(t *testing.T) {
	d := testkit.New(t)
	w := web{address: testkit.Address(t), workers: 1}
	d.Configure("[control]\nsocket = \"" + d.Socket + "\"\nmode = \"0640\"\n" + w.toml(t))
	d.Launch("run", "-c", d.File)
	d.WaitReady()
	expect(t, testkit.Exec(t, testkit.Command{Path: d.Program, Args: []string{"status", "-c", d.File}, Env: d.Env}), 0, "running")
	d.Stop()
}

// Without a file and without flags, two workers serve on 127.0.0.1:8124.
func TestEmbeddedDefault(t *testing.T) {
	const address = "127.0.0.1:8124"
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Skipf("somebody else uses %s: %v", address, err)
	}
	_ = l.Close()
	d := testkit.New(t)
	d.Launch("run", "--socket", d.Socket)
	if s := d.WaitReady(); s.Pools[0].Ready != 2 {
		t.Errorf("%+v", s.Pools)
	}
	if body := get(t, address); !strings.Contains(body, "slot=") {
		t.Errorf("answer: %q", body)
	}
	expect(t, d.Run("reload"), exitUsage, "without a configuration file")
	d.Stop()
}
