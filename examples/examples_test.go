// Package examples_test runs the examples, and what the documents show.
package examples_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"
)

const (
	missing  = 77 // exit code of a run.sh that lacks a program
	perRun   = 3  // ports that each may use
	together = 6  // run at once, on few processors, too: they mostly wait
)

func TestMain(m *testing.M) {
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		_ = f.Value.Set(strconv.Itoa(max(together, runtime.GOMAXPROCS(0))))
	}
	os.Exit(m.Run())
}

func TestExamples(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and runs daemons")
	}
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("needs bash")
	}
	scripts, err := filepath.Glob("*/run.sh")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	env := append(os.Environ(), "SUPERVISORD="+build(t, "./cmd/supervisord"), "LOADGEN="+build(t, "./bench/loadgen"))
	ports := freePorts(t, len(scripts))
	for i, script := range scripts {
		t.Run(filepath.Dir(script), func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, bash, script)
			cmd.Env = append(env[:len(env):len(env)], "PORT="+ports[i], "DIR="+shortDir(t))
			// The script ends its daemon when it is told to end.
			cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
			cmd.WaitDelay = 30 * time.Second
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			if errors.As(err, &exit) && exit.ExitCode() == missing {
				t.Skipf("%s", bytes.TrimSpace(out))
			}
			if err != nil {
				t.Fatalf("%s: %v\n%s", script, err, out)
			}
		})
	}
}

// freePorts returns the first ports of n blocks of perRun ports of 127.0.0.1 that nobody
// listens on. They are below those from which the kernel chooses, so that no other test
// gets one by chance.
func freePorts(t *testing.T, n int) []string {
	t.Helper()
	var firsts []string
	for port := 20000 + os.Getpid()%10000; len(firsts) < n && port < 32000; port += perRun {
		if areFree(port) {
			firsts = append(firsts, strconv.Itoa(port))
		}
	}
	if len(firsts) < n {
		t.Fatal("no free ports")
	}
	return firsts
}

func areFree(first int) bool {
	for port := first; port < first+perRun; port++ {
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			return false
		}
		_ = l.Close()
	}
	return true
}

// shortDir is t.TempDir with a path short enough for sockets (unix(7): 107 bytes).
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "sd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}
