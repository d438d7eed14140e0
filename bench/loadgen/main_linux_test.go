package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/f72e338e/supervisord/bench/load"
)

func server(t *testing.T, status int) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Worker", "77")
		w.WriteHeader(status)
		w.Write([]byte("hello"))
	}))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

func TestExitCodes(t *testing.T) {
	good, bad := server(t, 200), server(t, 503)
	short := []string{"--ignore-drops", "--late", "15s", "--timeout", "20s", "--duration", "1m", "--count", "20"}
	for _, test := range []struct {
		name string
		args []string
		code int
		out  string
	}{
		{"good", append(short, "--clients", "2", "--keepalive", "2", "--match", "^hello$", good), 0, "OK: nothing lost"},
		{"groups", append(short, "--group", "name=a,rate=200,path=/x,match=hello", "--group", "name=b,target="+good+",clients=2,keepalive,every=5ms", good), 0, "total"},
		{"bad", append(short, "--clients", "2", bad), exitLost, "wrong-answer"},
		{"versus", append(short, "--clients", "2", "--rounds", "2", "--versus", good, good), 0, "median of ratios"},
		{"versus bad", append(short, "--clients", "2", "--rounds", "2", "--versus", bad, good), exitLost, "round 1 of 2"},
		{"help", []string{"--help"}, 0, "usage: loadgen"},
		{"no flag", []string{"--frobnicate"}, exitUsage, "frobnicate"},
		{"no load", []string{good}, exitUsage, "nothing to send"},
		{"flag after target", []string{"--rate", "1", good, "--json"}, exitUsage, "after all flags"},
		{"elsewhere", []string{"--rate", "1", "192.0.2.1:80"}, exitUsage, "not a loopback address"},
		{"group key", []string{"--group", "speed=1", good}, exitUsage, `unknown key "speed"`},
		{"pid", []string{"--rate", "1", "--cpu-of", "x", good}, exitUsage, "no process id"},
	} {
		var out, errOut strings.Builder
		code := run(t.Context(), test.args, &out, &errOut)
		if text := out.String() + errOut.String(); code != test.code || !strings.Contains(text, test.out) {
			t.Errorf("%s: exit code %d, want %d and %q:\n%s", test.name, code, test.code, test.out, text)
		}
	}
}

func TestJSON(t *testing.T) {
	var out, errOut strings.Builder
	code := run(t.Context(), []string{"--json", "--ignore-drops", "--late", "15s", "--timeout", "20s", "--count", "20", "--clients", "2", server(t, 200)}, &out, &errOut)
	var r load.Result
	if err := json.Unmarshal([]byte(out.String()), &r); err != nil || code != 0 {
		t.Fatalf("exit code %d, %v\n%s%s", code, err, out.String(), errOut.String())
	}
	if r.Answered != 20 || r.PIDs[77] != 20 || len(r.Groups) != 1 || !r.OK() {
		t.Errorf("%+v", r)
	}
}
