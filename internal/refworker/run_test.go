//go:build unix

package refworker

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

const helper = "REFWORKER_TEST_HELPER"

// TestMain runs this binary as the reference worker when a test starts it so.
func TestMain(m *testing.M) {
	if os.Getenv(helper) != "" {
		os.Exit(Run(os.Args[1:], os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// start runs the worker and returns it with the address it listens on.
func start(t *testing.T, args ...string) (*exec.Cmd, string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), helper+"=1")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(line)
	return cmd, f[len(f)-1]
}

func TestHTTP(t *testing.T) {
	cmd, addr := start(t, "--listen", "127.0.0.1:0")
	tr := &http.Transport{}
	for path, want := range map[string]string{
		"/": "pool= slot=0 worker=0 pid=", "/slow?ms=1": "pid=", "/cpu?ms=1": "pid=", "/connections": "total=1 missing=0\n",
	} {
		r, err := (&http.Client{Transport: tr}).Get("http://" + addr + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r.Body)
		_ = r.Body.Close()
		if err != nil || !strings.Contains(string(body), want) || r.Header.Get("X-Worker") != strconv.Itoa(cmd.Process.Pid) {
			t.Errorf("%s: %q %q %v", path, body, r.Header.Get("X-Worker"), err)
		}
	}
	tr.CloseIdleConnections()
	_ = cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
}

// Echo connections go on over the drain.
func TestEcho(t *testing.T) {
	cmd, addr := start(t, "--echo", "--listen", "127.0.0.1:0")
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	echo := func() {
		_, _ = io.WriteString(c, "ping")
		buf := make([]byte, 4)
		if _, err := io.ReadFull(c, buf); err != nil || string(buf) != "ping" {
			t.Fatalf("echo: %q %v", buf, err)
		}
	}
	echo()
	_ = cmd.Process.Signal(syscall.SIGTERM)
	for refused := false; !refused; { // the listener closes
		d, err := net.Dial("tcp", addr)
		if refused = err != nil; !refused {
			_ = d.Close()
		}
	}
	echo()
	_ = c.Close()
	if err := cmd.Wait(); err != nil {
		t.Errorf("after the last connection: %v", err)
	}
}

func TestFaults(t *testing.T) {
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"--exit-after", "0s"}, exitFailed, "--exit-after"},
		{[]string{"--exit-after", "1ms", "--never-ready", "--listen", "127.0.0.1:0"}, exitFailed, "--exit-after"},
		{[]string{"--bogus"}, exitUsage, "bogus"},
		{[]string{"argument"}, exitUsage, "unexpected argument"},
		{[]string{"--help"}, exitOK, "-ignore-term"},
	} {
		var stderr bytes.Buffer
		if code := Run(c.args, io.Discard, &stderr); code != c.code || !strings.Contains(stderr.String(), c.says) {
			t.Errorf("%v: %d, want %d: %s", c.args, code, c.code, &stderr)
		}
	}
}
