package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/f72e338e/supervisord/config"
	"github.com/f72e338e/supervisord/internal/api"
)

// socketPath is the control socket that was named: by flag, then environment.
func (g *global) socketPath() string {
	if g.socket != "" {
		return g.socket
	}
	return os.Getenv("SUPERVISORD_SOCKET")
}

// dial finds the master: by --socket, $SUPERVISORD_SOCKET, the configuration's
// [control] socket, else the usual places in their order.
func (g *global) dial(ctx context.Context) (*api.Client, error) {
	paths := api.SocketCandidates()
	switch {
	case g.socketPath() != "":
		paths = []string{g.socketPath()}
	default:
		path, err := config.Find(g.config)
		if err != nil {
			return nil, configError(err)
		}
		if path != "" {
			cfg, err := config.Load(path)
			if errors.Is(err, fs.ErrNotExist) {
				return nil, configError(err)
			}
			var socket string
			if err != nil {
				// The running master may have been started from what was good. Another one
				// at the usual places is not to be taken for it.
				if socket, err = config.ControlSocket(path); err != nil {
					return nil, configError(fmt.Errorf("where the master listens is not known (--socket, or SUPERVISORD_SOCKET, names it): %w", err))
				}
			} else {
				socket = cfg.Control.Socket
			}
			if socket != "" {
				paths = []string{socket}
			}
		}
	}
	c, err := api.Dial(ctx, paths)
	switch {
	case errors.Is(err, api.ErrNoMaster):
		return nil, &exitError{code: exitNoMaster, err: err}
	case err != nil:
		return nil, &exitError{code: exitFailed, err: err}
	}
	return c, nil
}

// answerTime bounds questions, which a master that runs answers at once.
const answerTime = 10 * time.Second

// asking returns a context for a question that may take extra time.
func asking(extra time.Duration) (context.Context, context.CancelFunc) {
	ctx, stop := interruptible()
	bounded, cancel := context.WithTimeout(ctx, answerTime+extra)
	return bounded, func() { cancel(); stop() }
}

// unanswered says what became of a question that failed.
func unanswered(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return &exitError{code: exitTimeout, err: errors.New("the master does not answer: it is stopped, or short of descriptors")}
	}
	return failed(err)
}

// interruptible returns a context that ends with the first SIGINT or SIGTERM.
func interruptible() (context.Context, context.CancelFunc) {
	return signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
}

func failed(err error) error { return &exitError{code: exitFailed, err: err} }

// printJSON writes v as one document.
func printJSON(v any) error {
	enc := json.NewEncoder(os.Stdout)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// waiting holds the flags of the commands that change something.
type waiting struct {
	noWait  bool
	timeout time.Duration
	json    bool
}

func (w *waiting) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.BoolVar(&w.noWait, "no-wait", false, "return when the master has taken the command")
	f.DurationVar(&w.timeout, "timeout", 0, "stop waiting after this `duration` (exit code 5); the operation goes on (default: no limit)")
	f.BoolVar(&w.json, "json", false, "print each line of the master's answer as JSON")
}

// command sends a command, shows what happens (to one pool, if it concerns just
// that), and ends with what came of it.
func (g *global) command(w *waiting, path string, body any, pool, done string) error {
	ctx, cancel := interruptible()
	defer cancel()
	c, err := g.dial(ctx)
	if err != nil {
		return err
	}
	if w.timeout > 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, w.timeout)
		defer stop()
	}
	show := newProgress(os.Stdout)
	taken := errors.New("taken")
	var noted error
	waitCtx, leave := context.WithCancel(ctx)
	defer leave()
	res, err := c.Command(waitCtx, path, body, func(l api.Line) {
		switch {
		case w.json:
			_ = json.NewEncoder(os.Stdout).Encode(l)
		case l.Event != nil && (pool == "" || l.Event.Pool == "" || l.Event.Pool == pool):
			show.event(*l.Event)
		}
		if l.Operation != 0 && w.noWait {
			noted = taken
			leave()
		}
	})
	show.end()
	switch {
	case noted != nil:
		return nil
	case errors.Is(err, context.DeadlineExceeded):
		return &exitError{code: exitTimeout, err: fmt.Errorf("not done after %v; the operation goes on (supervisord status shows it)", w.timeout)}
	case errors.Is(err, context.Canceled):
		return failed(errors.New("interrupted; the operation goes on (supervisord status shows it)"))
	case err != nil:
		return failed(err)
	}
	if w.json {
		_ = json.NewEncoder(os.Stdout).Encode(api.Line{Result: &res})
	}
	return g.ended(w, res, done)
}

func (g *global) ended(w *waiting, res api.Result, done string) error {
	if res.Error == "" {
		if !w.json {
			fmt.Println(done)
		}
		return nil
	}
	code := map[string]int{api.KindConfig: exitConfig, api.KindUsage: exitUsage}[res.Kind]
	if code == 0 {
		code = exitFailed
	}
	text := res.Error
	if len(res.Output) > 0 {
		text += fmt.Sprintf("\nlast lines of worker %d:\n  ", res.Worker) + strings.Join(clean(res.Output), "\n  ")
	}
	return &exitError{code: code, err: errors.New(text), quiet: false}
}

// clean escapes what a terminal would obey in lines that a worker chose.
func clean(lines []string) []string {
	out := make([]string, len(lines))
	for i, l := range lines {
		out[i] = strings.Map(func(r rune) rune {
			if r != '\t' && (r < 0x20 || r >= 0x7f && r < 0xa0) {
				return '\uFFFD'
			}
			return r
		}, l)
	}
	return out
}
