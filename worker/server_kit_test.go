//go:build linux

package worker

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/f72e338e/supervisord/fdpass"
	"github.com/f72e338e/supervisord/internal/proto"
)

// events of a server, as they come.
type record struct {
	mu   sync.Mutex
	list []string
}

func (r *record) add(what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = append(r.list, what)
}

func (r *record) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.list, " ")
}

// rig is a server under test: its events, and its connections as they come.
type rig struct {
	*Server
	t      *testing.T
	w      *Worker
	events *record
	socks  chan *Socket // of handlers, which hold them until the end of the test
}

// newRig makes a server on a stand-alone worker, unless o names one. At the end
// of the test everything of it must be over, and no descriptor left.
func newRig(t *testing.T, o ServerOptions) *rig {
	t.Helper()
	noLeak(t)
	if o.Worker == nil {
		o.Worker = alone(t)
	}
	r := &rig{t: t, w: o.Worker, events: new(record), socks: make(chan *Socket, 64)}
	add := func(what string, then func()) func() {
		return func() {
			r.events.add(what)
			if then != nil {
				then()
			}
		}
	}
	o.OnListening, o.OnClose = add("listening", o.OnListening), add("close", o.OnClose)
	then := o.OnError
	o.OnError = func(err error) {
		r.events.add("error")
		if then != nil {
			then(err)
		}
	}
	dropped := o.OnDrop
	o.OnDrop = func(d Drop) {
		r.events.add("drop")
		if dropped != nil {
			dropped(d)
		}
	}
	connected := o.OnConnection
	o.OnConnection = func(c *Socket) {
		r.events.add("connection")
		if connected != nil {
			connected(c)
		}
		r.socks <- c
	}
	r.Server = NewServer(o, nil)
	t.Cleanup(r.end)
	return r
}

// end closes the server and whatever it still holds, and waits until all is over.
func (r *rig) end() {
	_ = r.Stop()
	eventually(r.t, "every listening is over", func() bool {
		for len(r.socks) > 0 {
			_ = (<-r.socks).Close()
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.periods == 0 && r.telling == 0
	})
}

func (r *rig) listen(address string, opts ...ListenOption) {
	r.t.Helper()
	if err := r.Listen(context.Background(), "tcp", address, opts...); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) saw(want string) {
	r.t.Helper()
	eventually(r.t, "events "+want+", have "+r.events.String(), func() bool { return r.events.String() == want })
}

// refuses waits until the server does not listen; then nobody does at addr.
func (r *rig) refuses(addr string) {
	r.t.Helper()
	eventually(r.t, "not listening", func() bool { return !r.IsListening() })
	if dial2(addr)() == nil {
		r.t.Error("a connection was not refused")
	}
}

// next is the next connection on the server's side; it is closed with the test.
func (r *rig) next() *Socket {
	r.t.Helper()
	select {
	case c := <-r.socks:
		r.t.Cleanup(func() { _ = c.Close() })
		return c
	case <-time.After(patience):
		r.t.Fatal("no connection")
		return nil
	}
}

// connect dials the server and returns both ends.
func (r *rig) connect() (*net.TCPConn, *Socket) {
	r.t.Helper()
	c := dial(r.t, r.Addr().String()).Conn.(*net.TCPConn)
	return c, r.next()
}

// watched are the tests that compare their descriptors already.
var watched sync.Map

// noLeak compares the descriptors of the process with those at the end of the
// test, when everything that the test registered has been closed. Once in a test:
// a second server's start is not its end's measure, since the first may accept
// what was dialled before only after that.
func noLeak(t *testing.T) {
	t.Helper()
	if _, again := watched.LoadOrStore(t, nil); again {
		return
	}
	t.Cleanup(func() { watched.Delete(t) })
	_ = dial2("127.0.0.1:1")() // the poller has its own descriptors by now
	before := descriptors(t)
	t.Cleanup(func() {
		defer func() { // eventually ends the test
			if descriptors(t) <= before {
				return
			}
			entries, _ := os.ReadDir("/proc/self/fd")
			for _, e := range entries {
				to, _ := os.Readlink("/proc/self/fd/" + e.Name())
				t.Logf("descriptor %s: %s", e.Name(), to)
			}
		}()
		eventually(t, fmt.Sprintf("as many descriptors as at the start, %d", before), func() bool {
			if descriptors(t) <= before {
				return true
			}
			runtime.GC() // splice(2) has pipes, which the net package keeps until then
			return false
		})
	})
}

func descriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// grants lets the master answer each listen with f until the test ends, and
// returns the requests.
func (m *master) grants(f *fdpass.File, b proto.Bound) <-chan proto.Listen {
	asked := make(chan proto.Listen, 64)
	done := make(chan struct{})
	go func() {
		defer close(done)
		handle := proto.HandleID(100)
		for e := range m.in {
			if l, ok := e.Body.(proto.Listen); ok {
				handle++
				asked <- l
				if err := m.conn.Send(proto.Envelope{Re: e.ID, Body: proto.Grant{Handle: handle, Network: l.Network, Address: b.Address, Backlog: b.Backlog}}, f); err != nil {
					return
				}
			}
		}
	}()
	m.t.Cleanup(func() { _ = m.conn.Close(); <-done })
	return asked
}

// atEnd reports what a client reads: what came, and whether the stream ended.
func atEnd(t *testing.T, c net.Conn) error {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(patience))
	var b [1]byte
	n, err := io.ReadFull(c, b[:])
	if n > 0 {
		t.Fatalf("got %q, want the end", b)
	}
	return err
}
