// Server is the smallest server worth measuring, in the two forms that
// bench/compare sets against each other: a worker of supervisord, when it is
// started as one, or else a plain process that serves the listening socket which
// it inherited as descriptor 3. Both run the same accept loop and handler.
//
// It speaks HTTP just enough for the load client of bench/load: any request is
// answered with the process number, "GET /cpu?ms=N " after N milliseconds of CPU
// time. "Connection: close" must be the last header; everything else keeps the
// connection.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/f72e338e/supervisord/worker"
)

// listener is the name of the configured listener.
const listener = "web"

func main() {
	run := plain
	if os.Getenv(worker.Environment) != "" {
		run = supervised
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "server:", err)
		os.Exit(1)
	}
}

func plain() error {
	file := os.NewFile(3, "listener")
	l, err := net.FileListener(file)
	if err != nil {
		return err
	}
	_ = file.Close()
	fmt.Println("ready")
	return newServer().accept(l)
}

func supervised() error {
	ctx := context.Background()
	w, err := worker.Join(ctx, worker.Client("compare"))
	if err != nil {
		return err
	}
	l, err := w.ListenName(ctx, listener)
	if err != nil {
		return err
	}
	s := newServer()
	ended := make(chan error, 1)
	go func() { ended <- s.accept(l) }()
	if err := w.Ready(); err != nil {
		return err
	}
	select {
	case err := <-ended:
		return err
	case <-w.Draining():
	}
	_ = l.Close()
	if err := <-ended; err != nil {
		return err
	}
	s.wait(time.Until(w.DrainDeadline()))
	return w.Close()
}

type server struct {
	open          sync.WaitGroup
	closing, kept []byte // the two answers
}

func newServer() *server {
	body := strconv.Itoa(os.Getpid()) + "\n"
	head := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\nX-Worker: %d\r\n", len(body), os.Getpid())
	return &server{closing: []byte(head + "Connection: close\r\n\r\n" + body), kept: []byte(head + "\r\n" + body)}
}

// accept serves until the listener is closed.
func (s *server) accept(l net.Listener) error {
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		s.open.Go(func() { s.serve(c) })
	}
}

// wait returns when no connection is open, at most after d.
func (s *server) wait(d time.Duration) {
	done := make(chan struct{})
	go func() { s.open.Wait(); close(done) }()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
}

var (
	requestEnd = []byte("\r\n\r\n")
	lastEnd    = []byte("close\r\n\r\n")
	burnBegin  = []byte("GET /cpu?ms=")
)

// serve answers requests until one asks to close, or the peer does.
func (s *server) serve(c net.Conn) {
	defer func() { _ = c.Close() }()
	buf := make([]byte, 512)
	for n := 0; ; {
		got, err := c.Read(buf[n:])
		n += got
		request := buf[:n]
		if !bytes.HasSuffix(request, requestEnd) {
			if err != nil || n == len(buf) {
				return
			}
			continue
		}
		if rest, ok := bytes.CutPrefix(request, burnBegin); ok {
			digits, _, _ := bytes.Cut(rest, []byte(" "))
			ms, _ := strconv.Atoi(string(digits))
			burn(time.Duration(ms) * time.Millisecond)
		}
		if bytes.HasSuffix(request, lastEnd) {
			_, _ = c.Write(s.closing)
			return
		}
		if _, err := c.Write(s.kept); err != nil {
			return
		}
		n = 0
	}
}
