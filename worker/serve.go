package worker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/f72e338e/supervisord/internal/proto"
)

// flushTimeout bounds how long Serve waits for its last words to be sent.
const flushTimeout = 200 * time.Millisecond

// Serve is a whole HTTP worker: it joins, listens, says ready, serves, and
// drains when the supervisor says so, at SIGTERM or SIGINT, or when ctx ends.
// With address "" it serves every configured stream listener of the pool, and
// network is not used. When srv.TLSConfig has certificates it serves TLS.
//
// It returns nil when the drain ended with every connection finished; see
// [Worker.Serve] for the drain and the errors, beside those of Join and Listen.
func Serve(ctx context.Context, srv *http.Server, network, address string, opts ...Option) error {
	o := split(opts)
	w, err := Join(ctx, o.join...)
	if err != nil {
		return err
	}
	listeners, err := w.listeners(ctx, network, address, o.listen)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { w.Drain(context.Cause(ctx).Error()) })
	defer stop()
	return w.Serve(ctx, srv, listeners...)
}

// listeners opens what Serve serves.
func (w *Worker) listeners(ctx context.Context, network, address string, opts []ListenOption) ([]net.Listener, error) {
	if address != "" {
		l, err := w.Listen(ctx, network, address, opts...)
		return []net.Listener{l}, err
	}
	if !w.Supervised() {
		return nil, fmt.Errorf("no address to listen on: %w, so no listener is configured", ErrStandAlone)
	}
	var list []net.Listener
	for _, e := range w.Listeners() {
		if proto.IsDatagram(e.Network) {
			continue
		}
		l, err := w.ListenName(ctx, e.Name, opts...)
		if err != nil {
			closeAll(list)
			return nil, err
		}
		list = append(list, l)
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("no address to listen on: pool %q has no stream listeners", w.Pool())
	}
	return list, nil
}

// Serve serves HTTP on the listeners, says ready, and returns when it has
// drained. It takes the listeners, and srv, whose Handler and ConnState it
// wraps: one Serve for a server.
//
// It drains when the worker does, at SIGTERM or SIGINT, or when ctx ends (this
// server only), so that no client is cut off:
//
//  1. connections in the accept queue are taken, the listeners closed
//  2. answers carry "Connection: close" (HTTP/2: GOAWAY); idle connections stay
//     open until their next answer, or until IdleGrace is over
//  3. http.Server.Shutdown: idle connections are closed, requests finished
//  4. hijacked connections are waited for, until the drain's deadline
//
// It goes on as soon as no connection is left. A second signal ends the drain.
//
// Errors: ErrDeadline, with the number of connections that were cut off; those
// of http.Server.Serve, and http.ErrServerClosed when srv was shut down by
// somebody else.
func (w *Worker) Serve(ctx context.Context, srv *http.Server, listeners ...net.Listener) error {
	if len(listeners) == 0 {
		return errors.New("worker: Serve without a listener")
	}
	s := &serving{w: w, srv: srv, gone: make(chan struct{}, 1), ended: make(chan error, len(listeners)),
		signals: make(chan os.Signal, 2)}
	signal.Notify(s.signals, syscall.SIGTERM, os.Interrupt)
	defer signal.Stop(s.signals)
	s.start(listeners)
	_ = w.Ready() // only a drain or the end of the link can be in the way
	var err error
	select {
	case err = <-s.ended:
		s.running--
		if errors.Is(err, http.ErrServerClosed) {
			s.join()
			return err
		}
	case sig := <-s.signals:
		s.signalled++
		w.Drain("signal: " + sig.String())
	case <-w.Draining():
	case <-ctx.Done():
	}
	s.signalled = max(1, s.signalled) // the next signal ends the drain, whatever began it
	err = errors.Join(err, s.drain())
	fctx, cancel := context.WithTimeout(context.Background(), flushTimeout)
	defer cancel()
	w.flush(fctx)
	return err
}

func closeAll(list []net.Listener) {
	for _, l := range list {
		_ = l.Close()
	}
}
