package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/f72e338e/supervisord/bench/load"
)

const (
	exitLost  = 1
	exitUsage = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is main with its surroundings as arguments; it returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parse(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintln(stderr, "loadgen:", err)
		return exitUsage
	}
	if o.versus != "" {
		return compare(ctx, o, stdout, stderr)
	}
	res, err := load.Run(ctx, o.plan)
	if err != nil {
		fmt.Fprintln(stderr, "loadgen:", err)
		return exitUsage
	}
	if err := write(o, res, stdout); err != nil {
		fmt.Fprintln(stderr, "loadgen:", err)
		return exitLost
	}
	if ctx.Err() != nil {
		fmt.Fprintf(stderr, "loadgen: interrupted after %v of %v\n", res.Elapsed, o.plan.Duration)
		return exitLost
	}
	if !res.OK() {
		return exitLost
	}
	return 0
}

// compare alternates the target and --versus. A run that lost something ends it.
func compare(ctx context.Context, o options, stdout, stderr io.Writer) int {
	side := func(target string, cpuOf []int) load.Side {
		plan := o.plan
		plan.CPUOf = cpuOf
		plan.Groups = append([]load.Group(nil), plan.Groups...)
		for i := range plan.Groups {
			plan.Groups[i].Target = target
		}
		return load.Side{Name: target, Run: func() (load.Sample, error) {
			res, err := load.Run(ctx, plan)
			if err == nil {
				err = errors.Join(ctx.Err(), res.Err())
			}
			return res.Sample(), err
		}}
	}
	c, err := load.Alternate(o.rounds, side(o.target, o.plan.CPUOf), side(o.versus, o.versusCPU))
	if err != nil {
		fmt.Fprintln(stderr, "loadgen:", err)
		return exitLost
	}
	if err := write(o, c, stdout); err != nil {
		fmt.Fprintln(stderr, "loadgen:", err)
		return exitLost
	}
	return 0
}

func write(o options, v interface{ WriteTable(io.Writer) error }, w io.Writer) error {
	if !o.json {
		return v.WriteTable(w)
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
