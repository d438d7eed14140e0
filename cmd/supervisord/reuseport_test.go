package main

import (
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/f72e338e/supervisord/internal/api"
	"github.com/f72e338e/supervisord/internal/testkit"
)

// TestDatagramsOfReusePort: under reuse_port each worker has a UDP socket of its own.
// What arrives while workers are replaced, and while there are more or fewer of
// them, is answered all the same.
func TestDatagramsOfReusePort(t *testing.T) {
	address := testkit.Address(t)
	d := testkit.New(t)
	d.Configure(fmt.Sprintf("[listener.dns]\nnetwork = \"udp\"\naddress = %q\npolicy = \"reuse_port\"\n"+
		"[pool.dns]\ncommand = [%q, \"--echo\"]\nworkers = 3\nlisteners = [\"dns\"]\nrollout.monitor = \"0s\"\n", address, testkit.Program(t, "cmd/worker")))
	d.Start()
	d.WaitSettled()
	var asked, answered atomic.Int64
	stop := make(chan struct{})
	var clients sync.WaitGroup
	for i := range 20 {
		c, err := net.Dial("udp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		clients.Go(func() {
			buf := make([]byte, 100)
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				text := fmt.Sprintf("%d/%d", i, n)
				asked.Add(1)
				if _, err := c.Write([]byte(text)); err != nil {
					t.Errorf("%s: %v", text, err)
					return
				}
				_ = c.SetReadDeadline(time.Now().Add(time.Second))
				got, err := c.Read(buf)
				if err != nil {
					continue // lost; it is counted
				}
				if string(buf[:got]) != text {
					t.Errorf("asked %q, got %q", text, buf[:got])
				}
				answered.Add(1)
			}
		})
	}
	flows := func() {
		t.Helper()
		before := answered.Load()
		testkit.Until(t, testkit.Patience, "answers", func() bool { return answered.Load() > before+200 })
	}
	flows()
	for _, step := range [][]string{{"restart"}, {"scale", "dns", "5"}, {"restart"}, {"scale", "dns", "1"}, {"scale", "dns", "2"}} {
		d.Must(step...)
		d.WaitSettled()
		flows()
	}
	close(stop)
	clients.Wait()
	if lost := asked.Load() - answered.Load(); lost > 0 {
		t.Errorf("%d of %d datagrams were not answered", lost, asked.Load())
	}
	d.Stop()
}

// TestReusePortAfterShrinking: a slot that comes back has its socket to itself again,
// and as many connections as the others.
func TestReusePortAfterShrinking(t *testing.T) {
	address := testkit.Address(t)
	d := testkit.New(t)
	d.Configure(fmt.Sprintf("[listener.web]\naddress = %q\npolicy = \"reuse_port\"\n[pool.web]\ncommand = [%q, \"--echo\"]\nworkers = 2\nlisteners = [\"web\"]\nrollout.monitor = \"0s\"\n",
		address, testkit.Program(t, "cmd/worker")))
	d.Start()
	d.WaitSettled()
	d.Must("scale", "web", "1")
	d.WaitSettled()
	d.Must("scale", "web", "2")
	d.WaitSettled()
	const clients = 200
	var conns []net.Conn
	for range clients {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		conns = append(conns, c)
		_ = c.SetDeadline(time.Now().Add(testkit.Patience))
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	d.Await("each with its share", func(s api.Status) bool {
		total, fewest := int64(0), int64(clients)
		for _, w := range s.Pools[0].Workers {
			if w.Connections == nil {
				return false
			}
			total += *w.Connections
			fewest = min(fewest, *w.Connections)
		}
		return total == clients && fewest >= clients/4 // the hash alone gives each 70 or more
	})
	for _, c := range conns { // the workers would wait for them
		_ = c.Close()
	}
	d.Stop()
}
