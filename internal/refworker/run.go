package refworker

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/f72e338e/supervisord/worker"
)

// Exit codes of Run.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// Run runs the reference worker with the arguments of its command line and
// returns its exit code: 0 after a drain, 1 when it failed, 2 for a wrong
// command line. It blocks until then. --hang-after and --ignore-term act on the
// whole process.
func Run(args []string, stdout, stderr io.Writer) int {
	c, err := parse(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return exitOK
	}
	if err != nil {
		return exitUsage
	}
	if err := run(context.Background(), c, stdout, stderr); err != nil {
		fmt.Fprintf(stderr, "worker: %v\n", err)
		return exitFailed
	}
	return exitOK
}

// errExit is what --exit-after ends with.
var errExit = errors.New("panic: exiting with code 1, because --exit-after says so")

type reference struct {
	config
	w       *worker.Worker
	streams []net.Listener
	packets []net.PacketConn
	stderr  io.Writer
}

func run(ctx context.Context, c config, stdout, stderr io.Writer) error {
	if c.exitAfter == 0 {
		return errExit
	}
	r := &reference{config: c, stderr: stderr}
	// Failing on time comes first, so that a wait for the supervisor cannot
	// be in its way.
	failed := make(chan error, 1)
	go func() { failed <- r.serve(ctx, stdout) }()
	exit, hang := after(c.exitAfter), after(c.hangAfter)
	for {
		select {
		case err := <-failed:
			return err
		case <-exit:
			return errExit
		case <-hang:
			hang = nil
			fmt.Fprintln(stderr, "worker: hanging now, because --hang-after says so")
			stopSelf()
		}
	}
}

// after returns a channel for a duration that may be never.
func after(d time.Duration) <-chan time.Time {
	if d < 0 {
		return nil
	}
	return time.NewTimer(d).C
}

// serve is the life of the worker: join, listen, wait, be ready, drain.
func (r *reference) serve(ctx context.Context, stdout io.Writer) error {
	if r.ignoreTerm {
		signal.Ignore(syscall.SIGTERM)
	}
	w, err := worker.Join(ctx, worker.Client("reference worker"))
	if err != nil {
		return err
	}
	r.w = w
	if err := r.open(ctx); err != nil {
		return err
	}
	for _, l := range r.streams {
		fmt.Fprintf(stdout, "worker %d listens on %s %s\n", os.Getpid(), l.Addr().Network(), l.Addr())
	}
	for _, p := range r.packets {
		fmt.Fprintf(stdout, "worker %d listens on %s %s\n", os.Getpid(), p.LocalAddr().Network(), p.LocalAddr())
	}
	sigs := make(chan os.Signal, 1)
	if !r.ignoreTerm {
		signal.Notify(sigs, syscall.SIGTERM, os.Interrupt)
		defer signal.Stop(sigs)
	}
	if r.delay > 0 {
		timer := time.NewTimer(r.delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-r.draining():
		case s := <-sigs:
			w.Drain("signal: " + s.String())
		}
	}
	if r.echo || len(r.packets) > 0 {
		return r.serveEcho(sigs)
	}
	return r.serveHTTP(ctx, sigs)
}

// draining is the worker's own, or never with --ignore-term.
func (r *reference) draining() <-chan struct{} {
	if r.ignoreTerm {
		return nil
	}
	return r.w.Draining()
}

// open listens on what the command line names, or else on what is configured.
func (r *reference) open(ctx context.Context) error {
	list := r.listen
	if len(list) == 0 && !r.w.Supervised() {
		list = addresses{DefaultAddress}
	}
	for _, address := range list {
		if err := r.openAddress(ctx, address); err != nil {
			return err
		}
	}
	if len(list) > 0 {
		return nil
	}
	for _, e := range r.w.Listeners() {
		if strings.HasPrefix(e.Network, "udp") || e.Network == "unixgram" {
			p, err := r.w.ListenPacket(ctx, e.Network, e.Address, r.options()...)
			if err != nil {
				return err
			}
			r.packets = append(r.packets, p)
			continue
		}
		l, err := r.w.ListenName(ctx, e.Name, r.options()...)
		if err != nil {
			return err
		}
		r.streams = append(r.streams, l)
	}
	if len(r.streams)+len(r.packets) == 0 {
		return fmt.Errorf("nothing to serve: pool %q has no listeners, and there is no --listen", r.w.Pool())
	}
	return nil
}

func (r *reference) openAddress(ctx context.Context, address string) error {
	if strings.HasPrefix(r.network, "udp") || r.network == "unixgram" {
		p, err := r.w.ListenPacket(ctx, r.network, address, r.options()...)
		if err == nil {
			r.packets = append(r.packets, p)
		}
		return err
	}
	l, err := r.w.Listen(ctx, r.network, address, r.options()...)
	if err == nil {
		r.streams = append(r.streams, l)
	}
	return err
}
