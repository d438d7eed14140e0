package testkit

import (
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"sync"
)

const module = "github.com/f72e338e/supervisord/"

// programs are what was built for this process, by package and kind.
var programs struct {
	mu   sync.Mutex
	dir  string
	made map[string]error
}

// Program builds a command of this module, such as "cmd/supervisord", once for
// each process, and returns its path. It has the race detector when the test has.
// The test must run below the module's directory, as tests do.
func Program(t T, pkg string) string {
	t.Helper()
	return build(t, pkg, Race)
}

// PlainProgram is Program without the race detector, for tests of memory and of
// a process at rest.
func PlainProgram(t T, pkg string) string {
	t.Helper()
	return build(t, pkg, false)
}

func build(t T, pkg string, race bool) string {
	t.Helper()
	programs.mu.Lock()
	defer programs.mu.Unlock()
	if programs.dir == "" {
		dir, err := os.MkdirTemp("", "sd-bin-")
		if err != nil {
			t.Fatalf("no directory for programs: %v", err)
		}
		programs.dir, programs.made = dir, map[string]error{}
	}
	out := filepath.Join(programs.dir, path.Base(pkg))
	args := []string{"build"}
	if race {
		out += "-race"
		args = append(args, "-race")
	}
	err, done := programs.made[out]
	if !done {
		var text []byte
		cmd := exec.Command("go", append(args, "-o", out, module+pkg)...)
		if text, err = cmd.CombinedOutput(); err != nil {
			t.Logf("%s", text)
		}
		programs.made[out] = err
	}
	if err != nil {
		t.Fatalf("cannot build %s: %v", pkg, err)
	}
	return out
}

// Clean removes what was built.
func Clean() {
	programs.mu.Lock()
	defer programs.mu.Unlock()
	if programs.dir != "" {
		_ = os.RemoveAll(programs.dir)
		programs.dir = ""
	}
}

// Main is the TestMain of packages that use [Program]. m is a *testing.M.
func Main(m interface{ Run() int }) {
	code := m.Run()
	Clean()
	os.Exit(code)
}
