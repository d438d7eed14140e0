package core

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite docs/lifecycle.md")

// Every state has a cell for every event: what is done and what follows, or
// ignore, or impossible. A blank one is an accident waiting to happen.
func TestLifecycleComplete(t *testing.T) {
	if len(lifecycle) != len(workerStates) {
		t.Errorf("%d states in the table, %d in workerStates", len(lifecycle), len(workerStates))
	}
	for _, s := range workerStates {
		if len(lifecycle[s]) != len(workerEvents) {
			t.Errorf("%s: %d events in the table, %d in workerEvents", s, len(lifecycle[s]), len(workerEvents))
		}
		for _, e := range workerEvents {
			cl, ok := lifecycle[s][e]
			switch {
			case !ok:
				t.Errorf("%s, %s: blank", s, e)
			case cl.do == nil && cl.to == "" && (cl.note == ignore.note || cl.note == impossible.note):
			case cl.do == nil || cl.note == "":
				t.Errorf("%s, %s: neither ignore, nor impossible, nor something done that has a note", s, e)
			case cl.to != Gone && !slices.Contains(workerStates, cl.to):
				t.Errorf("%s, %s: leads to %q, which is no state", s, e, cl.to)
			}
		}
	}
}

// Every state can be reached from the first one, and from each the end can be.
func TestLifecycleConnected(t *testing.T) {
	reach := func(from WorkerState) map[WorkerState]bool {
		seen, next := map[WorkerState]bool{}, []WorkerState{from}
		for len(next) > 0 {
			s := next[0]
			next = next[1:]
			if seen[s] {
				continue
			}
			seen[s] = true
			for _, e := range transitions(s) {
				next = append(next, e.to)
			}
		}
		return seen
	}
	for _, s := range workerStates {
		if !reach(Forking)[s] {
			t.Errorf("nothing leads to %s", s)
		}
		if !reach(s)[Gone] {
			t.Errorf("%s never ends", s)
		}
	}
}

// docs/lifecycle.md is what the table says.
//
//	go test ./internal/core -run Lifecycle -update
func TestLifecycleDocument(t *testing.T) {
	const path = "../../docs/lifecycle.md"
	want := lifecycleDocument()
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(got), want); diff != "" {
		t.Errorf("docs/lifecycle.md is not what the table says (go test ./internal/core -run Lifecycle -update):\n%s", diff)
	}
}

// public gives the states their names in status, logs and the API.
var public = map[WorkerState]string{
	Forking: "starting", Starting: "starting", Ready: "ready", Unlinked: "killing",
	Leaving: "draining", Draining: "draining", Killing: "killing",
}

var stateMeanings = map[WorkerState]string{
	Forking:  "asked for; no process yet",
	Starting: "the process exists and is not ready yet",
	Ready:    "serves",
	Unlinked: "closed its link; its exit should follow at once",
	Leaving:  "will be told to drain when `drain_delay` is over",
	Draining: "told to drain; finishes what is open",
	Killing:  "has the stop signal; SIGKILL is next",
}

var eventMeanings = map[wevent]string{
	evSpawned:     "the process exists",
	evSpawnFailed: "there is no process",
	evStageFailed: "the process could not become the command",
	evReady:       "the worker is ready, as its pool's `ready` says",
	evDraining:    "the worker drains by its own will, or says that it does as told",
	evLinkClosed:  "the worker's end of the link is closed",
	evLinkBroken:  "the worker does not read its link, or sends garbage over it",
	evDeadline:    "the state's deadline has come",
	evExited:      "the process is gone",
	evDrain:       "the master wants it to drain: replaced, scaled away, stop",
	evEnd:         "the master wants it to end now: fast stop",
}

// edge is an arrow of the diagram.
type edge struct {
	to     WorkerState
	events []string
}

// transitions returns where a state can lead, in the order of the states. A
// function may go on further at once, as the notes say.
func transitions(from WorkerState) []edge {
	var out []edge
	for _, to := range append(slices.Clone(workerStates), Gone) {
		e := edge{to: to}
		for _, ev := range workerEvents {
			if cl := lifecycle[from][ev]; cl.do != nil && cl.to == to && to != from {
				e.events = append(e.events, string(ev))
			}
		}
		if len(e.events) > 0 {
			out = append(out, e)
		}
	}
	return out
}

func lifecycleDocument() string {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	p("# The life of a worker\n")
	p("Generated from the table in `internal/core/lifecycle.go`, which is what the master runs:")
	p("`go test ./internal/core -run Lifecycle -update`. A test fails when the two differ, or when a cell is blank.\n")
	p("## States\n\n| state | shown as | meaning |\n|---|---|---|")
	for _, s := range workerStates {
		p("| %s | %s | %s |", s, public[s], stateMeanings[s])
	}
	p("\nA slot without a worker is shown as `backoff` while it waits for its next try, and as `failed` when there is none or only")
	p("a slow one. `gone`, below, is the end: the record goes with the process.\n")
	p("## Transitions\n\n```mermaid\nstateDiagram-v2\n    [*] --> %s", Forking)
	for _, s := range workerStates {
		for _, e := range transitions(s) {
			to := string(e.to)
			if e.to == Gone {
				to = "[*]"
			}
			p("    %s --> %s: %s", s, to, strings.Join(e.events, ", "))
		}
	}
	p("```\n")
	p("With `drain_delay = \"0s\"`, the default, `leaving` is passed through at once; with `ready = \"delay\"` the deadline of")
	p("`starting` leads to `ready` instead.\n")
	p("## Events\n\n| event | meaning |\n|---|---|")
	for _, e := range workerEvents {
		p("| %s | %s |", e, eventMeanings[e])
	}
	p("\n## What happens\n")
	p("`·` means that nothing happens, and that this is right. `!` cannot happen; if it does, nothing happens.\n")
	for _, half := range [][]WorkerState{workerStates[:4], workerStates[4:]} {
		p("| event | %s |\n|---|%s", join(half, " | "), strings.Repeat("---|", len(half)))
		for _, e := range workerEvents {
			var cells []string
			for _, s := range half {
				cells = append(cells, cellText(s, lifecycle[s][e]))
			}
			p("| **%s** | %s |", e, strings.Join(cells, " | "))
		}
		p("")
	}
	return strings.TrimRight(b.String(), "\n") + "\n"
}

func cellText(from WorkerState, cl cell) string {
	switch {
	case cl.note == ignore.note:
		return "·"
	case cl.note == impossible.note:
		return "!"
	case cl.to == from:
		return cl.note
	}
	return "→ **" + string(cl.to) + "**: " + cl.note
}

func join(states []WorkerState, sep string) string {
	var names []string
	for _, s := range states {
		names = append(names, string(s))
	}
	return strings.Join(names, sep)
}

// Every state and event is explained, so that the document has no gap.
func TestLifecycleExplained(t *testing.T) {
	for _, s := range workerStates {
		if public[s] == "" || stateMeanings[s] == "" {
			t.Errorf("state %s is not explained", s)
		}
	}
	for _, e := range workerEvents {
		if eventMeanings[e] == "" {
			t.Errorf("event %s is not explained", e)
		}
	}
}
