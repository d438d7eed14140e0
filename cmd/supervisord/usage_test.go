package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/f72e338e/supervisord/internal/testkit"
)

// plain runs the program with nothing but what is given.
func plain(t *testing.T, dir string, env []string, args ...string) testkit.Output {
	t.Helper()
	return testkit.Exec(t, testkit.Command{Path: testkit.Program(t, "cmd/supervisord"), Args: args, Dir: dir,
		Env: append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir}, env...)})
}

func TestVersion(t *testing.T) {
	for _, arg := range []string{"version", "--version"} {
		expect(t, plain(t, t.TempDir(), nil, arg), 0, "supervisord ")
	}
}

func TestHelp(t *testing.T) {
	for _, args := range [][]string{{}, {"help"}, {"--help"}, {"run", "--help"}, {"reload", "-h"}} {
		expect(t, plain(t, t.TempDir(), nil, args...), 0, "Usage:", "supervisord")
	}
}

func TestUsage(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "sd.toml")
	for _, test := range []struct {
		args []string
		says string
	}{
		{[]string{"frobnicate"}, "frobnicate"},
		{[]string{"status", "--frobnicate"}, "frobnicate"},
		{[]string{"status", "more"}, "more"},
		{[]string{"reload", "more"}, "more"},
		{[]string{"restart", "a", "b"}, "at most 1 arg"},
		{[]string{"scale", "web"}, "accepts 2 arg"},
		{[]string{"scale", "web", "many"}, `"many" is no number of workers`},
		{[]string{"scale", "web", "-1"}, ""},
		{[]string{"scale", "web", "10001"}, "0 to 10000"},
		{[]string{"reload", "--timeout", "soon"}, "soon"},
		{[]string{"connections", "--timeout", "5"}, "unit"},
		{[]string{"run", "--workers", "2"}, "supervisord run --workers"},
		{[]string{"run", "--listen", "127.0.0.1:1"}, "supervisord run --listen"},
		{[]string{"run", "-c", file, "--", "true"}, "exclude each other"},
	} {
		expect(t, plain(t, dir, []string{"XDG_RUNTIME_DIR=" + dir}, test.args...), exitUsage, test.says)
	}
}

// Without a master every command ends with 4 and says where it looked.
func TestNoMaster(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "sd.toml")
	named := filepath.Join(dir, "named.sock")
	toml := "[control]\nsocket = \"" + named + "\"\n[pool.a]\ncommand = [\"true\"]\nprotocol = \"none\"\nready = \"delay:1s\"\n"
	if err := os.WriteFile(file, []byte(toml), 0o600); err != nil {
		t.Fatal(err)
	}
	commands := [][]string{{"status"}, {"connections"}, {"events"}, {"events", "-f"}, {"reload"}, {"restart"}, {"scale", "web", "1"}, {"stop"},
		{"status", "--json"}, {"reload", "--no-wait"}}
	for _, c := range commands {
		expect(t, plain(t, dir, []string{"XDG_RUNTIME_DIR=" + dir}, c...), exitNoMaster,
			"no master there", dir+"/supervisord/control.sock (there is none)", "/run/supervisord/control.sock")
		expect(t, plain(t, dir, nil, append(c, "--socket", named)...), exitNoMaster, named+" (there is none)")
		expect(t, plain(t, dir, []string{"SUPERVISORD_SOCKET=" + named}, c...), exitNoMaster, named+" (there is none)")
		expect(t, plain(t, dir, nil, append(c, "-c", file)...), exitNoMaster, named+" (there is none)")
	}
	out := plain(t, dir, []string{"RUNTIME_DIRECTORY=" + dir + "/a:" + dir + "/b"}, "status")
	expect(t, out, exitNoMaster, dir+"/a/control.sock")
	if strings.Contains(out.Stderr, named) {
		t.Errorf("it looked where nobody told it to:\n%v", out)
	}
	if err := os.WriteFile(named, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	expect(t, plain(t, dir, nil, "status", "--socket", named), exitNoMaster, named)
}

// A master that was killed leaves its socket; the next one takes its place.
func TestStaleSocket(t *testing.T) {
	w := web{address: testkit.Address(t), workers: 1}
	d := start(t, w)
	pid := testkit.PIDs(d.Status(), "web")[0]
	d.KillMaster()
	expect(t, d.Run("status"), exitNoMaster, "nobody listens: its master is gone")
	testkit.Until(t, testkit.Patience, "the end of the worker without a master", func() bool { return len(testkit.FDs(pid)) == 0 })
	d.Start()
	get(t, w.address)
	d.Stop()
}
