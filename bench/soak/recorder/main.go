//go:build linux

// Recorder is the worker of the soak's torture scenarios. It answers one line a
// connection, and writes down each step before it does the next, so that after a
// kill -9 the files tell how far every connection had come:
//
//	A PID PEER        Accept returned it; nothing was read yet
//	R PID PEER LINE   the client's line was read; nothing was written yet
//	W PID PEER LINE   the line and the PID were sent back
//
// A record is one write(2) to a file opened with O_APPEND, DIRECTORY/PID: it is
// there whole once the call has returned, whatever becomes of the process.
//
//	recorder DIRECTORY
//
// It serves the listeners of its pool, and drains as examples/go-echo does.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/f72e338e/supervisord/worker"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: recorder DIRECTORY")
		os.Exit(2)
	}
	if err := run(context.Background(), os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "recorder:", err)
		os.Exit(1)
	}
}

// recorder is one process with its file.
type recorder struct {
	file *os.File
	pid  string
	open sync.WaitGroup // connections and accept loops
}

func run(ctx context.Context, dir string) error {
	r := &recorder{pid: strconv.Itoa(os.Getpid())}
	var err error
	if r.file, err = os.OpenFile(filepath.Join(dir, r.pid), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600); err != nil {
		return err
	}
	w, err := worker.Join(ctx, worker.Client("recorder"))
	if err != nil {
		return err
	}
	defer func() { _ = w.Close() }()
	var listeners []net.Listener
	for _, e := range w.Listeners() {
		l, err := w.ListenName(ctx, e.Name)
		if err != nil {
			return err
		}
		listeners = append(listeners, l)
	}
	for _, l := range listeners {
		r.open.Go(func() { r.accept(l) })
	}
	if err := w.Ready(); err != nil {
		return err
	}
	<-w.Draining()
	for _, l := range listeners {
		_ = l.Close()
	}
	done := make(chan struct{})
	go func() { r.open.Wait(); close(done) }()
	timer := time.NewTimer(time.Until(w.DrainDeadline()))
	defer timer.Stop()
	select {
	case <-done:
		return nil
	case <-timer.C:
		return errors.New("clients are still connected at the deadline")
	}
}

func (r *recorder) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			r.stop("accept", err)
		}
		peer := c.RemoteAddr().String()
		r.write("A", peer)
		r.open.Go(func() { r.answer(c, peer) })
	}
}

// answer sends the client's line back with the PID before it.
func (r *recorder) answer(c net.Conn, peer string) {
	defer func() { _ = c.Close() }()
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return
	}
	line = strings.TrimSuffix(line, "\n")
	r.write("R", peer, line)
	if _, err := fmt.Fprintf(c, "%s %s\n", r.pid, line); err != nil {
		return
	}
	r.write("W", peer, line)
}

// write appends one record.
func (r *recorder) write(kind string, rest ...string) {
	fields := append([]string{kind, r.pid}, rest...)
	if _, err := r.file.WriteString(strings.Join(fields, " ") + "\n"); err != nil {
		r.stop("record", err)
	}
}

// stop ends the process: without its records nothing can be judged.
func (r *recorder) stop(what string, err error) {
	fmt.Fprintf(os.Stderr, "recorder: %s: %v\n", what, err)
	os.Exit(1)
}
