package worker

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

// attached is what keeps a Worker busy, for Wait.
type attached struct {
	mu      sync.Mutex // taken after Server.mu
	servers map[*Server]struct{}
	stirred chan struct{} // closed at a change; nil when nobody waits
}

// attach makes a server part of what Wait waits for.
func (w *Worker) attach(s *Server) {
	w.attached.mu.Lock()
	defer w.attached.mu.Unlock()
	if w.attached.servers == nil {
		w.attached.servers = map[*Server]struct{}{}
	}
	w.attached.servers[s] = struct{}{}
}

// stir wakes those who wait, if any; a server that is idle is let go.
func (w *Worker) stir(s *Server, idle bool) {
	w.attached.mu.Lock()
	defer w.attached.mu.Unlock()
	if idle {
		delete(w.attached.servers, s)
	}
	if w.attached.stirred != nil {
		close(w.attached.stirred)
		w.attached.stirred = nil
	}
}

// busy returns whether a server keeps the worker from ending, how many
// connections there are, and a channel that is closed when that may have changed.
func (w *Worker) busy() (keeps bool, open int64, stirred <-chan struct{}) {
	w.attached.mu.Lock()
	if w.attached.stirred == nil {
		w.attached.stirred = make(chan struct{})
	}
	stirred = w.attached.stirred
	servers := make([]*Server, 0, len(w.attached.servers))
	for s := range w.attached.servers {
		servers = append(servers, s)
	}
	w.attached.mu.Unlock()
	for _, s := range servers {
		k, n := s.keeps()
		keeps, open = keeps || k, open+n
	}
	return keeps, open, stirred
}

// Wait returns when nothing is left to do: no [Server] listens but those with
// Unref, and no connection of any is open. A supervised worker is kept by its
// link too, so Wait returns only after the drain has begun. It blocks; what was
// opened with Listen rather than by a Server does not count.
//
// Errors: ErrDeadline at the deadline of a drain, with the number of connections
// that are open; ctx's.
func (w *Worker) Wait(ctx context.Context) error { return w.wait(ctx, nil) }

// Run is the rest of a program whose servers listen: it says ready, drains when
// the supervisor says so, at SIGTERM or SIGINT, or when ctx ends, and returns
// when Wait would. A second signal ends the drain. Errors: ErrDeadline.
func (w *Worker) Run(ctx context.Context) error {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, os.Interrupt)
	defer signal.Stop(signals)
	_ = w.Ready() // only a drain or the end of the link can be in the way
	stop := context.AfterFunc(ctx, func() { w.Drain(context.Cause(ctx).Error()) })
	defer stop()
	err := w.wait(context.Background(), signals)
	fctx, cancel := context.WithTimeout(context.Background(), flushTimeout)
	defer cancel()
	w.flush(fctx)
	return err
}

func (w *Worker) wait(ctx context.Context, signals <-chan os.Signal) error {
	draining := w.drainc
	for {
		keeps, _, stirred := w.busy()
		deadline, moved := w.bound(time.Time{})
		if !keeps && (w.conn == nil || !deadline.IsZero()) {
			return nil
		}
		var late <-chan time.Time
		var timer *time.Timer
		if !deadline.IsZero() {
			timer = time.NewTimer(time.Until(deadline))
			late = timer.C
		}
		err := error(nil)
		select {
		case <-stirred:
		case <-moved:
		case <-draining:
			draining = nil // the deadline is known from here on
		case <-late:
			if keeps, open, _ := w.busy(); keeps {
				err = fmt.Errorf("%w: %d connections were open", ErrDeadline, open)
			}
		case sig := <-signals:
			w.signalled(sig)
		case <-ctx.Done():
			err = ctx.Err()
		}
		if timer != nil {
			timer.Stop()
		}
		if err != nil {
			return err
		}
	}
}

// signalled begins a drain, or ends one that is under way.
func (w *Worker) signalled(sig os.Signal) {
	select {
	case <-w.drainc:
		w.hurry()
	default:
		w.Drain("signal: " + sig.String())
	}
}
