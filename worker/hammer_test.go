//go:build linux

package worker

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Fifty keep-alive clients send as fast as they get answers, while one worker
// after the other drains, its successor first. No request may be without its
// answer.
func TestDrainUnderLoad(t *testing.T) {
	const clients, drains = 50, 20
	f, b := bound(t, "tcp", "127.0.0.1")
	start := func() *server {
		w := alone(t, IdleGrace(2*time.Second))
		d, err := f.Dup()
		if err != nil {
			t.Fatal(err)
		}
		inner, err := fileListener(d)
		if err != nil {
			t.Fatal(err)
		}
		l, err := newListener(w, inner, func() {})
		if err != nil {
			t.Fatal(err)
		}
		return serveOn(t, w, &http.Server{Handler: http.HandlerFunc(hello)}, l)
	}
	var stop atomic.Bool
	var requests, reconnects atomic.Int64
	var running sync.WaitGroup
	for range clients {
		running.Go(func() {
			for !stop.Load() {
				if err := hammer(b.Address, &stop, &requests); err != nil {
					t.Error(err)
					return
				}
				reconnects.Add(1)
			}
		})
	}
	old := start()
	for range drains {
		successor := start()
		before := requests.Load()
		eventually(t, "traffic", func() bool { return requests.Load() > before+clients || t.Failed() })
		old.w.Drain("test")
		if err := old.ended(patience); err != nil {
			t.Error(err)
		}
		old = successor
	}
	stop.Store(true)
	running.Wait()
	old.w.Drain("end")
	if err := old.ended(patience); err != nil {
		t.Error(err)
	}
	t.Logf("%d requests on %d connections over %d drains", requests.Load(), reconnects.Load(), drains)
}

// hammer uses one connection until the server says that an answer is the last.
func hammer(addr string, stop *atomic.Bool, requests *atomic.Int64) error {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return fmt.Errorf("refused: %w", err)
	}
	defer c.Close()
	cl := &client{c, bufio.NewReader(c)}
	for !stop.Load() {
		if _, err := io.WriteString(c, get); err != nil {
			return fmt.Errorf("request: %w", err)
		}
		last, err := cl.answer()
		if err != nil {
			return fmt.Errorf("answer: %w", err)
		}
		requests.Add(1)
		if last {
			return nil
		}
	}
	return nil
}

// The accept queue of a listener that nobody else holds is emptied, not reset.
func TestDrainTakesQueue(t *testing.T) {
	w := alone(t)
	l, err := w.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var clients []*client
	for range 20 {
		c := dial(t, l.Addr().String())
		_, _ = io.WriteString(c, get)
		clients = append(clients, c)
	}
	w.Drain("before anything was accepted")
	s := serveOn(t, w, &http.Server{Handler: http.HandlerFunc(hello)}, l)
	for _, c := range clients {
		if last, err := c.answer(); err != nil {
			t.Fatal(err)
		} else if !last {
			t.Fatal("not the last answer")
		}
		_ = c.Close()
	}
	if err := s.ended(patience); err != nil {
		t.Fatal(err)
	}
}
