// Go-activation is an HTTP server on the sockets that systemd or supervisord passes.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
)

// grace is how long a kept connection may have one more request, once the server drains.
const grace = 5 * time.Second

func main() {
	listeners, err := activation.Listeners()
	if err != nil || len(listeners) == 0 {
		log.Fatal("no sockets were passed: ", err)
	}
	var open atomic.Int64
	var draining atomic.Bool
	srv := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if ms, err := strconv.Atoi(r.FormValue("ms")); err == nil {
				time.Sleep(time.Duration(ms) * time.Millisecond)
			}
			if draining.Load() { // so the client sends no more on a connection that closes
				w.Header().Set("Connection", "close")
			}
			w.Header().Set("X-Worker", strconv.Itoa(os.Getpid()))
			fmt.Fprintf(w, "pid %d\n", os.Getpid())
		}),
		ConnState: func(_ net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				open.Add(1)
			case http.StateClosed, http.StateHijacked:
				open.Add(-1)
			}
		},
	}
	for _, l := range listeners {
		go func() {
			if err := srv.Serve(l); !errors.Is(err, net.ErrClosed) && !errors.Is(err, http.ErrServerClosed) {
				log.Fatal(err)
			}
		}()
	}
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		log.Print(err)
	}
	ctx, _ := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	<-ctx.Done()
	// Shutdown alone closes idle connections at once, and cuts off the client that sends at that moment.
	draining.Store(true)
	for _, l := range listeners {
		_ = l.Close()
	}
	for end := time.Now().Add(grace); open.Load() > 0 && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	if err := srv.Shutdown(context.Background()); err != nil {
		log.Fatal(err)
	}
}
