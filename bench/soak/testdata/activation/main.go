// Activation is an HTTP server that takes its socket from systemd.
package main

import (
	"context"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"

	"github.com/coreos/go-systemd/v22/activation"
)

func main() {
	listeners, err := activation.Listeners()
	if err != nil || len(listeners) != 1 {
		log.Fatalf("%d sockets, want one: %v", len(listeners), err)
	}
	var open sync.WaitGroup // connections
	server := &http.Server{
		Handler: http.HandlerFunc(hello),
		ConnState: func(_ net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				open.Add(1)
			case http.StateClosed, http.StateHijacked:
				open.Done()
			}
		},
	}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	served := make(chan error, 1)
	go func() { served <- server.Serve(listeners[0]) }()
	select {
	case err := <-served:
		log.Fatal(err)
	case <-ctx.Done():
	}
	// Not by Shutdown: a request that it finds accepted and not yet read is read, and
	// the connection closed without an answer; one that is being accepted it does not
	// wait for. When Serve has returned all connections are known; idle ones are closed,
	// the others after their answer.
	_ = listeners[0].Close()
	<-served
	server.SetKeepAlivesEnabled(false)
	open.Wait()
}

func hello(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("X-Worker", strconv.Itoa(os.Getpid()))
	fmt.Fprintf(w, "pid=%d round=%s\n", os.Getpid(), os.Getenv("ROUND"))
}
