package main

import (
	"context"
	"encoding/json"
	"errors"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/f72e338e/supervisord/bench/load"
)

// TestShortComparison starts a few targets, loads each once, and looks at the form
// of the report: a test is no benchmark.
func TestShortComparison(t *testing.T) {
	names := []string{"shared", "round_robin", plainGo, nodeRR, inCMaster, "nginx"}
	var quoted []string
	for _, name := range names {
		quoted = append(quoted, regexp.QuoteMeta(name))
	}
	var out, errOut strings.Builder
	args := []string{"-rounds", "1", "-duration", "300ms", "-late", "15s", "-cases", "rate", "-only", "^(" + strings.Join(quoted, "|") + ")$"}
	code := run(t.Context(), args, &out, &errOut)
	text := out.String()
	if code != 0 {
		t.Fatalf("exit code %d\n%s%s", code, text, errOut.String())
	}
	for _, name := range names {
		row := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + ` +(other|m-batch|w-batch|batch) +[-\d]+ +\d+ +[\d.]+ +[-\d.]+ +\d+ +\d+ `)
		optional := !slices.Contains([]string{"shared", "round_robin", plainGo}, name)
		if !row.MatchString(text) && (!optional || !strings.Contains(text, name+": not available: there is no")) {
			t.Errorf("no figures of %s, and no reason", name)
		}
	}
	for _, want := range []string{
		`rate: shared / plain Go, rate/s +\d+\.\d\d +>= 1.30 +(pass|miss)`,
		`rate: reuse_port / reuse_port, hash, rate/s +- +>= 0.95 +not measured`,
	} {
		if !regexp.MustCompile(want).MatchString(text) {
			t.Errorf("the report has no %s", want)
		}
	}
	if t.Failed() {
		t.Logf("%s%s", text, errOut.String())
	}
}

func TestCommandLine(t *testing.T) {
	for _, test := range []struct {
		args string
		code int
		out  string
	}{
		{"-help", 0, "regexp"},
		{"-frobnicate", exitUsage, "frobnicate"},
		{"rate", exitUsage, "unexpected argument"},
		{"-rounds 0", exitUsage, "rounds are 1 to 100"},
		{"-duration 2h", exitUsage, "the duration is 100ms"},
		{"-cases rate,speed", exitUsage, `unknown case "speed" (one of rate, spread, tail, fixed)`},
		{"-only [", exitUsage, "missing closing ]"},
		{"-only nobody", exitUsage, `no target matches "nobody"`},
	} {
		var out, errOut strings.Builder
		code := run(t.Context(), strings.Fields(test.args), &out, &errOut)
		if code != test.code || !strings.Contains(errOut.String(), test.out) || out.Len() > 0 {
			t.Errorf("%s: exit code %d, want %d and %q:\n%s%s", test.args, code, test.code, test.out, out.String(), errOut.String())
		}
	}
}

func TestOrder(t *testing.T) {
	for n := 1; n < 6; n++ {
		firsts := map[int]bool{}
		for round := range 2 * n {
			list := order(round, n)
			firsts[list[0]] = true
			slices.Sort(list)
			for i, x := range list {
				if i != x {
					t.Fatalf("round %d of %d is no permutation: %v", round, n, list)
				}
			}
		}
		if n > 1 && len(firsts) < 2 {
			t.Errorf("of %d sides the same is always the first", n)
		}
	}
}

// scripted is a side that shows these rates, one a round, and fails behind them.
func scripted(name string, rates ...float64) side {
	return side{name, func(context.Context) (sample, error) {
		if len(rates) == 0 {
			return nil, errors.New("refused")
		}
		r := rates[0]
		rates = rates[1:]
		return sample{rate: r}, nil
	}}
}

func TestAlternate(t *testing.T) {
	told := 0
	b, err := alternate(t.Context(), 4, []side{scripted("a", 10, 30, 20, 40), scripted("b", 5, 10, 10, 10), scripted("c", 1, 1)},
		func(_ int, name string, _ sample, err error) {
			told++
			if err != nil && name != "c" {
				t.Errorf("%s: %v", name, err)
			}
		})
	if err != nil || told != 11 || len(b.rounds) != 4 {
		t.Fatalf("%v, %d runs, %d rounds", err, told, len(b.rounds))
	}
	for _, test := range []struct {
		what string
		got  func() (float64, bool)
		want float64
		ok   bool
	}{
		{"median", func() (float64, bool) { return b.median("a", rate) }, 25, true},
		{"ratio", func() (float64, bool) { return b.ratio("a", "b", rate) }, 2.5, true}, // of 2, 3, 2, 4
		{"difference", func() (float64, bool) { return b.difference("b", "a", rate) }, -15, true},
		{"median of one that failed", func() (float64, bool) { return b.median("c", rate) }, 0, false},
		{"ratio to one that failed", func() (float64, bool) { return b.ratio("a", "c", rate) }, 0, false},
		{"ratio to nobody", func() (float64, bool) { return b.ratio("a", "d", rate) }, 0, false},
		{"another metric", func() (float64, bool) { return b.median("a", p99) }, 0, false},
	} {
		if got, ok := test.got(); got != test.want || ok != test.ok {
			t.Errorf("%s: %v %v, want %v %v", test.what, got, ok, test.want, test.ok)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := alternate(ended, 1, []side{scripted("a", 1)}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("a context that ended: %v", err)
	}
}

func TestSpread(t *testing.T) {
	for _, test := range []struct {
		pids    map[int]int
		workers int
		want    sample
	}{
		{map[int]int{1: 100, 2: 100}, 2, sample{fewest: 100, most: 100, off: 0, crowded: 1}},
		{map[int]int{1: 98, 2: 101, 3: 101}, 3, sample{fewest: 98, most: 101, off: 2, crowded: 1.01}},
		{map[int]int{1: 90}, 3, sample{fewest: 0, most: 90, off: 60, crowded: 3}}, // two had none
	} {
		var res load.Result
		res.PIDs = test.pids
		for _, n := range test.pids {
			res.Answered += n
		}
		got := spread(res, test.workers)
		for m, want := range test.want {
			if got[m] != want {
				t.Errorf("%v of %d workers: %s is %v, want %v", test.pids, test.workers, m, got[m], want)
			}
		}
	}
}

func TestMust(t *testing.T) {
	b := &board{names: []string{"x", plainGo, inCMaster}, failed: map[string]error{}, rounds: []map[string]sample{{
		"x": {rate: 120, p50: 150, off: 2}, plainGo: {rate: 100, p50: 140}, inCMaster: {rate: 160},
	}}}
	r := &report{tables: []*table{{load: workload{name: "rate"}, board: b, likeInC: map[string]string{"x": inCMaster}}}}
	for _, test := range []struct {
		must must
		want string
	}{
		{must{load: "rate", target: "x", base: plainGo, metric: rate, limit: 1.2}, "pass"},
		{must{load: "rate", target: "x", base: plainGo, metric: rate, limit: 1.3}, "miss"},
		{must{load: "rate", target: "x", base: sameInC, metric: rate, limit: 0.75}, "pass"},
		{must{load: "rate", target: "x", base: sameInC, metric: rate, limit: 0.8}, "miss"},
		{must{load: "rate", target: "x", base: plainGo, minus: true, metric: p50, most: true, limit: 10}, "pass"},
		{must{load: "rate", target: "x", base: plainGo, minus: true, metric: p50, most: true, limit: 9}, "miss"},
		{must{load: "rate", target: "x", metric: off, most: true, limit: 2}, "pass"},
		{must{load: "rate", target: "x", metric: crowded, most: true, limit: 2}, "not measured"},
		{must{load: "rate", target: "y", metric: off, most: true, limit: 2}, "not measured"},
		{must{load: "tail", target: "x", metric: off, most: true, limit: 2}, "not measured"},
	} {
		if v := test.must.judge(r); v.Verdict != test.want || (v.Measured == nil) != (test.want == "not measured") {
			t.Errorf("%v, wanted %s: %s, want %s", test.must, test.must.wanted(), v.Verdict, test.want)
		}
	}
	known := map[string]bool{sameInC: true, "": true}
	for _, target := range targets() {
		known[target.name] = true
	}
	for _, m := range musts {
		if !known[m.target] || !known[m.base] {
			t.Errorf("%v: there is no such target", m)
		}
	}
}

func TestJSON(t *testing.T) {
	b := &board{names: []string{"x", "y"}, failed: map[string]error{"y": errors.New("refused")}, rounds: []map[string]sample{{"x": {rate: 120}}}}
	r := &report{tables: []*table{{load: workload{name: "rate"}, board: b}}}
	r.fail("rate", "y", b.failed["y"])
	var out strings.Builder
	if err := r.json(&out); err != nil {
		t.Fatal(err)
	}
	var got struct {
		Tables []struct {
			Targets []struct {
				Target  string
				Failed  bool
				Medians map[string]float64
			}
		}
		Must   []verdict
		Failed []failure
	}
	if err := json.Unmarshal([]byte(out.String()), &got); err != nil {
		t.Fatal(err)
	}
	x := got.Tables[0].Targets
	if x[0].Medians["rate/s"] != 120 || x[0].Failed || !x[1].Failed || len(got.Must) != len(musts) || len(got.Failed) != 1 {
		t.Errorf("%s", out.String())
	}
}
