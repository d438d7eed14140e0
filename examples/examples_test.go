// Package examples_test runs the examples, and what the documents show.
package examples_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// missing is the exit code of a run.sh that lacks a program.
const missing = 77

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
	ports := freePorts(t, len(scripts))
	for i, script := range scripts {
		t.Run(filepath.Dir(script), func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, bash, script)
			cmd.Env = append(os.Environ(), "PORT="+ports[i], "DIR="+shortDir(t))
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

// freePorts returns n ports of 127.0.0.1 that nobody listens on. They are below
// those from which the kernel chooses, so that no other test gets one by chance.
func freePorts(t *testing.T, n int) []string {
	t.Helper()
	var ports []string
	for port := 20000 + os.Getpid()%10000; len(ports) < n && port < 32000; port++ {
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			_ = l.Close()
			ports = append(ports, strconv.Itoa(port))
		}
	}
	if len(ports) < n {
		t.Fatal("no free ports")
	}
	return ports
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
