// Command go-http is an HTTP server that runs under supervisord, and without it.
//
//	go run ./examples/go-http -listen 127.0.0.1:8080
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/f72e338e/supervisord/worker"
)

// version is set when building: go build -ldflags "-X main.version=v2".
var version = "v1"

func main() {
	listen := flag.String("listen", "127.0.0.1:8080", "`address` to serve")
	flag.Parse()
	if err := run(context.Background(), *listen); err != nil {
		slog.Error("server ended", "err", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, listen string) error {
	w, err := worker.Join(ctx, worker.Client("go-http "+version))
	if err != nil {
		return err
	}
	srv := &http.Server{
		Handler:           routes(w),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       time.Minute,
	}
	// Whatever has to be there before the first request, such as a database
	// connection, is opened here: Serve says ready once it serves.
	return worker.Serve(ctx, srv, "tcp", listen)
}

func routes(w *worker.Worker) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(rw http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(rw, "version=%s pid=%d slot=%d generation=%d\n", version, os.Getpid(), w.Slot(), w.Generation())
	})
	mux.HandleFunc("GET /slow", slow)
	mux.HandleFunc("GET /connections", func(rw http.ResponseWriter, r *http.Request) {
		c, err := w.Connections(r.Context()) // of all workers of the pool
		if err != nil {
			http.Error(rw, err.Error(), http.StatusServiceUnavailable)
			return
		}
		rw.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(rw).Encode(c)
	})
	return mux
}

// slow answers after the time in "for": a request that outlives a restart.
func slow(rw http.ResponseWriter, r *http.Request) {
	d, err := time.ParseDuration(r.FormValue("for"))
	if err != nil || d < 0 || d > time.Minute {
		http.Error(rw, `for must be a duration up to a minute: /slow?for=2s`, http.StatusBadRequest)
		return
	}
	slog.Info("slow request", "for", d)
	select {
	case <-time.After(d):
		fmt.Fprintf(rw, "version=%s pid=%d waited=%s\n", version, os.Getpid(), d)
	case <-r.Context().Done():
	}
}
