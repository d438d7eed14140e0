package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/f72e338e/supervisord/bench/load"
)

type options struct {
	plan      load.Plan
	target    string
	json      bool
	versus    string
	versusCPU []int
	rounds    int
}

const usage = `usage: loadgen [flags] TARGET
TARGET is 127.0.0.1:PORT, [::1]:PORT, /PATH, unix:PATH or @NAME.
Each of --rate, --clients, --keepalive and --group adds a group; all run at once.
--group takes key=value,... of: name target proto path match rate clients keepalive every count sources reset

flags:
`

// parse reads the command line. Messages about flags go to stderr.
func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	base := load.Group{}
	fs := flag.NewFlagSet("loadgen", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.Usage = func() { fmt.Fprint(stderr, usage); fs.PrintDefaults() }
	rate := fs.Float64("rate", 0, "open loop: `N` new connections a second")
	clients := fs.Int("clients", 0, "closed loop: `N` clients, a new connection for each request")
	keep := fs.Int("keepalive", 0, "`N` clients that keep their connection")
	every := fs.Duration("every", 0, "period of each --keepalive or --clients client (0: at once after the answer)")
	var groups []string
	fs.Func("group", "one more group, as `key=value,...`", func(s string) error { groups = append(groups, s); return nil })
	proto := fs.String("proto", "http", "http or echo")
	fs.StringVar(&base.Path, "path", "/", "path to GET")
	match := fs.String("match", "", "regular expression for the body")
	fs.IntVar(&base.Count, "count", 0, "most requests of each group (0: 10 million)")
	fs.IntVar(&base.Sources, "sources", 0, "source addresses for 127.0.0.0/8 (0: 16, 1: the kernel's choice)")
	fs.BoolVar(&base.Reset, "reset", false, "close with RST")
	fs.DurationVar(&o.plan.Duration, "duration", 10*time.Second, "requests begin within it")
	fs.DurationVar(&o.plan.Timeout, "timeout", load.DefaultTimeout, "for one request")
	fs.DurationVar(&o.plan.Late, "late", load.DefaultLate, "a slower answer is lost")
	fs.IntVar(&o.plan.MaxOpen, "max-open", load.DefaultMaxOpen, "most open connections")
	fs.IntVar(&o.plan.Examples, "examples", 5, "failures of each kind shown as text")
	fs.BoolVar(&o.plan.IgnoreDrops, "ignore-drops", false, "an overflow of a listen queue is no failure")
	cpuOf := fs.String("cpu-of", "", "report the CPU time of these processes: `PID,...`")
	fs.BoolVar(&o.json, "json", false, "print JSON, durations in nanoseconds")
	fs.StringVar(&o.versus, "versus", "", "alternate with this `TARGET` and print the ratio")
	versusCPU := fs.String("versus-cpu-of", "", "as --cpu-of, for --versus: `PID,...`")
	fs.IntVar(&o.rounds, "rounds", 5, "rounds of --versus")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	if fs.NArg() > 1 {
		return o, fmt.Errorf("one target, after all flags: %q", fs.Args())
	}
	o.target = fs.Arg(0)
	base.Target, base.Proto = o.target, load.Proto(*proto)
	var err error
	if *match != "" {
		if base.Match, err = regexp.Compile(*match); err != nil {
			return o, err
		}
	}
	add := func(name string, set func(*load.Group)) {
		g := base
		g.Name = name
		set(&g)
		o.plan.Groups = append(o.plan.Groups, g)
	}
	if *rate != 0 {
		add("new", func(g *load.Group) { g.Rate = *rate })
	}
	if *clients != 0 {
		add("closed", func(g *load.Group) { g.Clients, g.Every = *clients, *every })
	}
	if *keep != 0 {
		add("kept", func(g *load.Group) { g.Clients, g.Every, g.KeepAlive = *keep, *every, true })
	}
	for _, spec := range groups {
		g, err := parseGroup(base, spec)
		if err != nil {
			return o, fmt.Errorf("--group %q: %w", spec, err)
		}
		o.plan.Groups = append(o.plan.Groups, g)
	}
	if len(o.plan.Groups) == 0 {
		return o, errors.New("nothing to send: give --rate, --clients, --keepalive or --group")
	}
	if o.versus != "" && o.target == "" {
		return o, errors.New("--versus needs a TARGET to compare with")
	}
	if o.plan.CPUOf, err = pids(*cpuOf); err != nil {
		return o, err
	}
	o.versusCPU, err = pids(*versusCPU)
	return o, err
}

// parseGroup reads one --group over the defaults of the other flags.
func parseGroup(g load.Group, spec string) (load.Group, error) {
	for field := range strings.SplitSeq(spec, ",") {
		key, value, has := strings.Cut(field, "=")
		if !has && (key == "keepalive" || key == "reset") {
			value = "true"
		}
		var err error
		switch key {
		case "name":
			g.Name = value
		case "target":
			g.Target = value
		case "proto":
			g.Proto = load.Proto(value)
		case "path":
			g.Path = value
		case "match":
			g.Match, err = regexp.Compile(value)
		case "rate":
			g.Rate, err = strconv.ParseFloat(value, 64)
		case "clients":
			g.Clients, err = strconv.Atoi(value)
		case "keepalive":
			g.KeepAlive, err = strconv.ParseBool(value)
		case "every":
			g.Every, err = time.ParseDuration(value)
		case "count":
			g.Count, err = strconv.Atoi(value)
		case "sources":
			g.Sources, err = strconv.Atoi(value)
		case "reset":
			g.Reset, err = strconv.ParseBool(value)
		default:
			return g, fmt.Errorf("unknown key %q", key)
		}
		if err != nil {
			return g, fmt.Errorf("%s: %w", key, err)
		}
	}
	return g, nil
}

func pids(s string) ([]int, error) {
	var list []int
	for f := range strings.SplitSeq(s, ",") {
		if f == "" {
			continue
		}
		pid, err := strconv.Atoi(f)
		if err != nil || pid < 1 {
			return nil, fmt.Errorf("%q is no process id", f)
		}
		list = append(list, pid)
	}
	return list, nil
}
