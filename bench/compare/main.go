package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/f72e338e/supervisord/bench/load"
)

// Exit codes.
const (
	exitFailed = 1
	exitUsage  = 2
)

const (
	maxRounds   = 100
	maxDuration = time.Minute
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is main with its surroundings as arguments; it returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, asJSON, err := parse(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintln(stderr, "compare:", err)
		return exitUsage
	}
	progress := stdout
	if asJSON {
		progress = stderr
	}
	o.say = func(format string, a ...any) { fmt.Fprintf(progress, format+"\n", a...) }
	var r report
	err = compare(ctx, o, &r)
	if ctx.Err() != nil {
		err = errors.New("interrupted; what was finished is above")
	}
	write := r.text
	if asJSON {
		write = r.json
	}
	if err := errors.Join(err, write(stdout)); err != nil {
		fmt.Fprintln(stderr, "compare:", err)
		return exitFailed
	}
	if len(r.failures) > 0 {
		return exitFailed
	}
	return 0
}

// compare measures the cases. What was measured until an error is in the report.
func compare(ctx context.Context, o options, r *report) error {
	k, err := newKit(ctx)
	if err != nil {
		return err
	}
	defer k.remove()
	for _, sc := range scenarios {
		if !slices.Contains(o.cases, sc.name) {
			continue
		}
		if err := measure(ctx, k, o, sc, r); err != nil {
			return fmt.Errorf("%s: %w", sc.name, err)
		}
	}
	return nil
}

// parse reads the command line. Messages about flags go to stderr.
func parse(args []string, stderr io.Writer) (o options, asJSON bool, err error) {
	var all []string
	for _, sc := range scenarios {
		all = append(all, sc.name)
	}
	fs := flag.NewFlagSet("compare", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.IntVar(&o.rounds, "rounds", 5, "how often each target is measured")
	fs.DurationVar(&o.duration, "duration", 2*time.Second, "length of one measurement")
	fs.DurationVar(&o.late, "late", load.DefaultLate, "a slower answer is lost, and fails the target")
	only := fs.String("only", "", "only targets whose name matches this `regexp`")
	cases := fs.String("cases", strings.Join(all, ","), "which `cases`")
	fs.BoolVar(&asJSON, "json", false, "print JSON, times in microseconds; progress goes to standard error")
	if err := fs.Parse(args); err != nil {
		return o, false, err
	}
	if fs.NArg() > 0 {
		return o, false, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	if o.rounds < 1 || o.rounds > maxRounds || o.duration < 100*time.Millisecond || o.duration > maxDuration || o.late <= 0 || o.late > maxDuration {
		return o, false, fmt.Errorf("rounds are 1 to %d, the duration is 100ms to %v, and late above 0 and at most that", maxRounds, maxDuration)
	}
	if o.only, err = regexp.Compile(*only); err != nil {
		return o, false, err
	}
	if !slices.ContainsFunc(targets(), func(t target) bool { return o.only.MatchString(t.name) }) {
		return o, false, fmt.Errorf("no target matches %q", *only)
	}
	o.cases = strings.Split(*cases, ",")
	for _, name := range o.cases {
		if !slices.Contains(all, name) {
			return o, false, fmt.Errorf("unknown case %q (one of %s)", name, strings.Join(all, ", "))
		}
	}
	return o, asJSON, nil
}
