package main

import (
	"strings"
	"testing"

	"github.com/f72e338e/supervisord/internal/testkit"
)

func TestCheck(t *testing.T) {
	d := testkit.New(t)
	w := web{address: "127.0.0.1:8080", workers: 3}
	d.Configure(w.toml(t))
	expect(t, d.Run("check", "-c", d.File), 0, d.File+": 1 listeners, 1 pools, no errors")
	expect(t, d.Run("check"), 0, "supervisord.toml") // found in the working directory

	// What -p prints is a configuration, and the same one.
	first := d.Must("check", "-p", "-c", d.File)
	if !first.Has("graceful_timeout", "workers", "127.0.0.1:8080") {
		t.Errorf("defaults are missing:\n%v", first)
	}
	d.Write("effective.toml", first.Stdout)
	second := d.Must("check", "-p", "-c", d.Path("effective.toml"))
	if first.Stdout != second.Stdout {
		t.Errorf("check -p of its own output differs:\n%s\n---\n%s", first.Stdout, second.Stdout)
	}
	expect(t, d.Run("check", "-c", d.Path("missing.toml")), exitConfig, "missing.toml")
}

const bad = `[listener.web]
address = "127.0.0.1:80800"
polcy = "shared"

[pool.web]
command = []
workers = "many"
graceful_timeout = 30
listeners = ["wbe"]
`

// badLines are where the errors in bad are.
var badLines = []string{":2: ", ":3: ", ":6: ", ":7: ", ":8: ", ":9: "}

func TestCheckBad(t *testing.T) {
	d := testkit.New(t)
	d.Configure(bad)
	for _, args := range [][]string{{"check", "-c", d.File}, {"run", "-c", d.File}} {
		out := d.Run(args...)
		expect(t, out, exitConfig, "listener.web.polcy", "policy", `"wbe"`, `"30s"`)
		for _, at := range badLines {
			if !strings.Contains(out.Stderr, d.File+at) {
				t.Errorf("no error at line %s\n%v", at, out)
			}
		}
	}
	d.Configure("this is no TOML")
	expect(t, d.Run("check", "-c", d.File), exitConfig, d.File+":1")
}

func TestEmbeddedDefaultIsGood(t *testing.T) {
	d := testkit.New(t)
	expect(t, d.Run("check"), 0, "embedded default")
	expect(t, d.Run("check", "-p"), 0, "127.0.0.1:8124", "workers", "2")
}
