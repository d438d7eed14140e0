// Command go-echo is the echo server of Node's net.Server documentation, as a
// worker: it says hello and sends back what it is sent.
//
//	go run ./examples/go-echo
//	nc 127.0.0.1 8124
//	nc -U echo.sock
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/f72e338e/supervisord/worker"
)

func main() {
	tcp := flag.String("tcp", "127.0.0.1:8124", "`address` to listen on")
	unix := flag.String("unix", "echo.sock", "`path` of a Unix socket to listen on")
	flag.Parse()
	if err := run(context.Background(), *tcp, *unix); err != nil {
		fmt.Fprintln(os.Stderr, "go-echo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, tcp, unix string) error {
	w, err := worker.Join(ctx, worker.Client("go-echo"))
	if err != nil {
		return err
	}
	defer w.Close()
	// No listener is configured. The workers ask for the sockets, and all of
	// them get the same two.
	tl, err := w.Listen(ctx, "tcp", tcp)
	if err != nil {
		return err
	}
	ul, err := w.Listen(ctx, "unix", unix)
	if err != nil {
		return err
	}
	var open sync.WaitGroup
	for _, l := range []net.Listener{tl, ul} {
		open.Go(func() { accept(l, &open) }) // what is accepted by then is waited for, too
	}
	fmt.Println("server bound")
	if err := w.Ready(); err != nil {
		return err
	}

	<-w.Draining()
	_ = tl.Close()
	_ = ul.Close()
	return wait(&open, time.Until(w.DrainDeadline()))
}

func accept(l net.Listener, open *sync.WaitGroup) {
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "go-echo:", err)
			time.Sleep(10 * time.Millisecond) // out of descriptors, most likely
			continue
		}
		open.Go(func() { echo(c) })
	}
}

func echo(c net.Conn) {
	fmt.Println("client connected")
	_, _ = io.WriteString(c, "hello\r\n")
	_, _ = io.Copy(c, c)
	_ = c.Close()
	fmt.Println("client disconnected")
}

// wait returns when the last client is gone, at most after d.
func wait(open *sync.WaitGroup, d time.Duration) error {
	gone := make(chan struct{})
	go func() {
		open.Wait()
		close(gone)
	}()
	select {
	case <-gone:
		return nil
	case <-time.After(d):
		return errors.New("clients are still connected at the deadline")
	}
}
