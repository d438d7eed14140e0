package refworker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/f72e338e/supervisord/worker"
)

// serveHTTP serves until the worker has drained. package worker does all of it,
// except for the two ways to misbehave.
func (r *reference) serveHTTP(ctx context.Context, sigs <-chan os.Signal) error {
	srv := &http.Server{Handler: r.handler(), ReadHeaderTimeout: 10 * time.Second}
	if !r.ignoreTerm && !r.neverReady {
		return r.w.Serve(ctx, srv, r.streams...)
	}
	ended := make(chan error, len(r.streams))
	for _, l := range r.streams {
		go func() { ended <- srv.Serve(l) }()
	}
	if !r.neverReady {
		_ = r.w.Ready()
	}
	select {
	case err := <-ended:
		return err
	case s := <-sigs:
		r.w.Drain("signal: " + s.String())
	case <-r.draining():
	}
	dctx, cancel := context.WithDeadline(ctx, r.w.DrainDeadline())
	defer cancel()
	return srv.Shutdown(dctx)
}

// identity is the line that tells which worker answered.
func (r *reference) identity() string {
	return fmt.Sprintf("pool=%s slot=%d worker=%d pid=%d generation=%d",
		r.w.Pool(), r.w.Slot(), r.w.ID(), os.Getpid(), r.w.Generation())
}

func (r *reference) handler() http.Handler {
	pid := strconv.Itoa(os.Getpid())
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(rw http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(rw, r.identity())
	})
	mux.HandleFunc("/slow", func(rw http.ResponseWriter, req *http.Request) {
		timer := time.NewTimer(milliseconds(req))
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-req.Context().Done():
		}
		fmt.Fprintln(rw, r.identity())
	})
	mux.HandleFunc("/cpu", func(rw http.ResponseWriter, req *http.Request) {
		burn(milliseconds(req))
		fmt.Fprintln(rw, r.identity())
	})
	mux.HandleFunc("/connections", func(rw http.ResponseWriter, req *http.Request) {
		c, err := r.w.Connections(req.Context())
		if err != nil {
			http.Error(rw, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(rw, r.identity())
		writeConnections(rw, c)
	})
	return http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
		rw.Header().Set("X-Worker", pid)
		mux.ServeHTTP(rw, req)
	})
}

func writeConnections(rw http.ResponseWriter, c worker.Conns) {
	fmt.Fprintf(rw, "total=%d missing=%d\n", c.Total, len(c.Missing))
	for _, w := range c.Workers {
		fmt.Fprintf(rw, "worker=%d slot=%d connections=%d\n", w.Worker, w.Slot, w.Connections)
	}
	for _, id := range c.Missing {
		fmt.Fprintf(rw, "worker=%d connections=unknown\n", id)
	}
}

func milliseconds(req *http.Request) time.Duration {
	n, _ := strconv.Atoi(req.FormValue("ms"))
	return time.Duration(n) * time.Millisecond
}

// burn keeps one CPU busy.
func burn(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); {
		for i := range 1000 {
			_ = i * i
		}
	}
}

// isClosed reports whether an accept loop ended because its listener was closed.
func isClosed(err error) bool { return errors.Is(err, net.ErrClosed) }
