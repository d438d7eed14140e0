package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/f72e338e/supervisord/internal/testkit"
)

// These tests run the built program, as a user does.
func TestMain(m *testing.M) { testkit.Main(m) }

// web is a configuration with one pool of reference workers.
type web struct {
	address string
	workers int
	args    []string // of the worker
	pool    string   // more lines of [pool.web]
	rest    string   // more sections
}

func (w web) toml(t *testing.T) string {
	command := append([]string{testkit.Program(t, "cmd/worker")}, w.args...)
	return fmt.Sprintf(`[listener.web]
address = %q

[pool.web]
command   = [%s]
workers   = %d
listeners = ["web"]
%s

[pool.web.rollout]
monitor = "0s"
%s
`, w.address, `"`+strings.Join(command, `", "`)+`"`, w.workers, w.pool, w.rest)
}

// start runs a daemon with the configuration.
func start(t *testing.T, w web) *testkit.Daemon {
	t.Helper()
	d := testkit.New(t)
	d.Configure(w.toml(t))
	d.Start()
	return d
}

// get asks the worker at the address, and fails the test when there is no answer.
func get(t *testing.T, address string) string {
	t.Helper()
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := c.Get("http://" + address + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Body.Close() }()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// hold opens connections that stay open until the test has ended.
func hold(t *testing.T, address string, n int) {
	t.Helper()
	for range n {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
	}
}

// expect checks the exit code and that the texts were said.
func expect(t *testing.T, out testkit.Output, code int, texts ...string) {
	t.Helper()
	if out.Code != code || !out.Has(texts...) {
		t.Errorf("want exit code %d and %q:\n%v", code, texts, out)
	}
	if strings.Contains(out.Stderr, "panic:") && strings.Contains(out.Stderr, "goroutine ") {
		t.Errorf("it panicked:\n%v", out)
	}
}
