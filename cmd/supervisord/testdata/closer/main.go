// Closer is a worker that never accepts on its first listener. At SIGUSR1 it closes
// that, at SIGUSR2 it listens again, and then it greets who comes.
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"syscall"

	"github.com/f72e338e/supervisord/worker"
)

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "closer:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGUSR1, syscall.SIGUSR2)
	w, err := worker.Join(ctx)
	if err != nil {
		return err
	}
	l, err := w.ListenName(ctx, "web")
	if err != nil {
		return err
	}
	if err := w.Ready(); err != nil {
		return err
	}
	for {
		select {
		case <-w.Draining():
			return l.Close()
		case s := <-signals:
			if s == syscall.SIGUSR1 {
				err = l.Close()
				fmt.Println("closed")
			} else if l, err = w.ListenName(ctx, "web"); err == nil {
				go greet(l)
			}
			if err != nil {
				return err
			}
		}
	}
}

func greet(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		_, _ = io.WriteString(c, "hello")
		_ = c.(interface{ CloseWrite() error }).CloseWrite()
		_, _ = io.Copy(io.Discard, c)
		_ = c.Close()
	}
}
