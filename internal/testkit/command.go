package testkit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// Command is a program to run to its end.
type Command struct {
	Path string
	Args []string
	Env  []string // the whole environment; nil: none
	Dir  string
}

// Output is what a command said, and how it ended.
type Output struct {
	Args   []string
	Stdout string
	Stderr string
	Code   int // exit code; -1 for a signal
	Took   time.Duration
}

// String shows all of it, for the message of a test that fails.
func (o Output) String() string {
	return fmt.Sprintf("$ %s\nexit code %d after %v\nstdout: %s\nstderr: %s", strings.Join(o.Args, " "), o.Code,
		o.Took.Round(time.Millisecond), strings.TrimRight(o.Stdout, "\n"), strings.TrimRight(o.Stderr, "\n"))
}

// Has reports whether stdout and stderr together hold every one of the texts.
func (o Output) Has(texts ...string) bool {
	for _, s := range texts {
		if !strings.Contains(o.Stdout+o.Stderr, s) {
			return false
		}
	}
	return true
}

// Exec runs a command. One that does not end in Patience is killed, and ends the
// test.
func Exec(t T, c Command) Output {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.Path, c.Args...)
	cmd.Env, cmd.Dir = append([]string{}, c.Env...), c.Dir
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = Patience // of one that was killed, a child may hold the output open
	begun := time.Now()
	err := cmd.Run()
	var ended *exec.ExitError
	if err != nil && !errors.As(err, &ended) {
		t.Fatalf("cannot run %s: %v", c.Path, err)
	}
	out := Output{Args: append([]string{c.Path}, c.Args...), Stdout: stdout.String(), Stderr: stderr.String(),
		Code: cmd.ProcessState.ExitCode(), Took: time.Since(begun)}
	if ctx.Err() != nil {
		t.Fatalf("did not end in %v, so it was killed: %v", Patience, out)
	}
	if strings.Contains(out.Stderr, raceReport) {
		t.Errorf("%v", out)
	}
	return out
}
