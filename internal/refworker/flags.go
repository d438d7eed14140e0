package refworker

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/f72e338e/supervisord/worker"
)

// DefaultAddress is served by a stand-alone worker that is given no address.
const DefaultAddress = "127.0.0.1:8124"

// never is the value of --exit-after and --hang-after that were not given.
const never = time.Duration(-1)

type config struct {
	listen     addresses
	network    string
	backlog    int
	exclusive  bool
	echo       bool
	delay      time.Duration
	neverReady bool
	exitAfter  time.Duration
	hangAfter  time.Duration
	ignoreTerm bool
}

type addresses []string

func (a *addresses) String() string     { return strings.Join(*a, " ") }
func (a *addresses) Set(s string) error { *a = append(*a, s); return nil }

// parse reads the command line. On an error, and for --help, the usage was
// written to stderr.
func parse(args []string, stderr io.Writer) (config, error) {
	c := config{exitAfter: never, hangAfter: never}
	f := flag.NewFlagSet("worker", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.Var(&c.listen, "listen", "`address` to serve, may be given again (default: the pool's configured listeners; without a supervisor "+DefaultAddress+")")
	f.StringVar(&c.network, "network", "tcp", "network of --listen: tcp, tcp4, tcp6, unix, unixpacket, udp, udp4, udp6, unixgram")
	f.IntVar(&c.backlog, "backlog", 511, "length of the accept queue")
	f.BoolVar(&c.exclusive, "exclusive", false, "share the sockets with no other slot")
	f.BoolVar(&c.echo, "echo", false, "send back what is received, instead of HTTP (datagrams: always)")
	f.DurationVar(&c.delay, "delay", 0, "wait so long before saying ready")
	f.BoolVar(&c.neverReady, "never-ready", false, "serve, but never say ready")
	f.Func("exit-after", "exit with code 1 after this `duration`; 0s before saying ready", optional(&c.exitAfter))
	f.Func("hang-after", "stop answering after this `duration`, as a program that hangs (SIGSTOP to itself)", optional(&c.hangAfter))
	f.BoolVar(&c.ignoreTerm, "ignore-term", false, "ignore SIGTERM and the order to drain")
	f.Usage = func() {
		fmt.Fprintf(stderr, "Usage: worker [flags]\n\nThe reference worker of supervisord. HTTP paths: /slow?ms=N waits, /cpu?ms=N burns,\n/connections shows the connections of the whole pool.\n\n")
		f.PrintDefaults()
	}
	if err := f.Parse(args); err != nil {
		return c, err
	}
	if f.NArg() > 0 {
		err := fmt.Errorf("worker: unexpected argument %q", f.Arg(0))
		fmt.Fprintln(stderr, err)
		f.Usage()
		return c, err
	}
	return c, nil
}

// optional reads a duration whose default is never.
func optional(d *time.Duration) func(string) error {
	return func(s string) (err error) {
		if *d, err = time.ParseDuration(s); err == nil && *d < 0 {
			err = errors.New("a duration cannot be negative")
		}
		return err
	}
}

func (c config) options() []worker.ListenOption {
	o := []worker.ListenOption{worker.Backlog(c.backlog)}
	if c.exclusive {
		o = append(o, worker.Exclusive())
	}
	return o
}
