package main

import (
	"strings"
	"testing"
)

func TestConfiguration(t *testing.T) {
	v := variant{policy: "round_robin", pool: oneProcessor, limits: batch}
	const want = `[listener.web]
address = "127.0.0.1:8080"
policy = "round_robin"

[pool.web]
command = ["/bin/server"]
workers = 4
listeners = ["web"]
env = { GOMAXPROCS = "1" }

[pool.web.limits]
scheduling = "batch"
`
	if got := v.configuration("127.0.0.1:8080", []string{"/bin/server"}, 4); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	bare := variant{policy: "shared"}.configuration("127.0.0.1:8080", []string{"/bin/server"}, 1)
	if strings.Contains(bare, "limits") || strings.Contains(bare, "env") {
		t.Errorf("something is stated that is the daemon's to choose:\n%s", bare)
	}
}

func TestNginxConfiguration(t *testing.T) {
	got := nginxConfiguration("/tmp/x", "127.0.0.1:8080 reuseport", 3)
	for _, want := range []string{"worker_processes 3;", "listen 127.0.0.1:8080 reuseport backlog=511;", "pid /tmp/x/nginx.pid;", "access_log off;"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}

// Names are what ratios and the command line go by.
func TestNamesAreUnique(t *testing.T) {
	seen := map[string]bool{}
	for _, target := range targets() {
		if seen[target.name] {
			t.Errorf("two targets are called %s", target.name)
		}
		seen[target.name] = true
		for _, c := range target.cases {
			if !target.takesPart(c) {
				t.Errorf("%s takes no part in %s", target.name, c)
			}
		}
	}
	if len(bases) != len(shortBases) {
		t.Errorf("%d bases, %d headers", len(bases), len(shortBases))
	}
}

// A peer that is not installed is no failure.
func TestNotInstalled(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	for _, target := range peers {
		if target.name != nodeRR && target.name != inC {
			continue
		}
		_, err := target.start(t.Context(), &kit{}, t.TempDir(), 2)
		if reason, is := isUnavailable(err); !is || !strings.Contains(reason, "on PATH") {
			t.Errorf("%s: %v", target.name, err)
		}
	}
}

// A complaint of the daemon loses the place that means nothing to the reader.
func TestPlace(t *testing.T) {
	for in, want := range map[string]string{
		":3: listener.web.policy: no":              "listener.web.policy: no",
		"supervisord: :12: pool.web: no":           "pool.web: no",
		"supervisord: cannot read the file: no":    "supervisord: cannot read the file: no",
		":3: listener.web: a\n:9: pool.web.env: b": "listener.web: a\npool.web.env: b",
	} {
		if got := place.ReplaceAllString(in, ""); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
