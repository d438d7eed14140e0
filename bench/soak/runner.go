package main

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
)

// runner is what a scenario has for a *testing.T when it is no test. Only the
// scenario's goroutine uses it, but for Logf, Errorf and Failed.
type runner struct {
	name    string
	ctx     context.Context
	cleanup []func()

	mu     sync.Mutex
	failed bool
	missed string // why it was skipped
}

// runScenario runs a scenario with its clean-up, and returns what came of it: PASS,
// FAIL or SKIP.
func runScenario(name string, fn func(*runner)) string {
	ctx, cancel := context.WithCancel(context.Background())
	r := &runner{name: name, ctx: ctx}
	r.part(func() { fn(r) })
	cancel()
	for len(r.cleanup) > 0 {
		last := len(r.cleanup) - 1
		f := r.cleanup[last]
		r.cleanup = r.cleanup[:last]
		r.part(f)
	}
	switch {
	case r.Failed():
		return "FAIL"
	case r.missed != "":
		return "SKIP"
	}
	return "PASS"
}

// part runs something that Fatalf may end, in a goroutine of its own, as package
// testing does.
func (r *runner) part(fn func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		fn()
	}()
	<-done
}

func (r *runner) Helper()                  {}
func (r *runner) Name() string             { return r.name }
func (r *runner) Context() context.Context { return r.ctx }
func (r *runner) Cleanup(f func())         { r.cleanup = append(r.cleanup, f) }

func (r *runner) Logf(format string, args ...any) {
	text := strings.TrimRight(fmt.Sprintf(format, args...), "\n")
	fmt.Println("    " + strings.ReplaceAll(text, "\n", "\n    "))
}

func (r *runner) Errorf(format string, args ...any) {
	r.mu.Lock()
	r.failed = true
	r.mu.Unlock()
	r.Logf("FAILED: "+format, args...)
}

func (r *runner) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	runtime.Goexit()
}

func (r *runner) Skipf(format string, args ...any) {
	r.missed = fmt.Sprintf(format, args...)
	r.Logf("skipped: %s", r.missed)
	runtime.Goexit()
}

func (r *runner) Failed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed
}
