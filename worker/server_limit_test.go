//go:build linux

package worker

import (
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"testing"

	"github.com/f72e338e/supervisord/internal/proto"
)

func TestServerMaxConnections(t *testing.T) {
	for limit, served := range map[int]int{0: 3, 1: 1, 2: 2, -1: 0} {
		r := newRig(t, ServerOptions{MaxConnections: limit})
		r.listen("127.0.0.1:0")
		want := "listening"
		for i := range 3 {
			c := dial(t, r.Addr().String())
			if i < served {
				r.next()
				want += " connection"
				continue
			}
			if err := atEnd(t, c); err != io.EOF {
				t.Errorf("limit %d: connection %d: %v", limit, i, err)
			}
			want += " drop"
		}
		r.saw(want)
		if r.Connections() != served {
			t.Errorf("limit %d: %d connections", limit, r.Connections())
		}
	}
}

func TestServerMaxConnectionsChanges(t *testing.T) {
	r := newRig(t, ServerOptions{})
	r.listen("127.0.0.1:0")
	_, a := r.connect()
	_, b := r.connect()
	r.SetMaxConnections(1) // closes nothing
	for _, s := range []*Socket{a, b} {
		if _, err := s.Write([]byte("x")); err != nil {
			t.Error(err)
		}
	}
	if err := atEnd(t, dial(t, r.Addr().String())); err != io.EOF {
		t.Error(err)
	}
	_, _ = a.Close(), b.Close()
	r.connect()
	r.saw("listening connection connection drop connection")
}

func TestServerDrop(t *testing.T) {
	drops := make(chan Drop, 1)
	r := newRig(t, ServerOptions{MaxConnections: -1, OnDrop: func(d Drop) { drops <- d }})
	r.listen("127.0.0.1:0")
	c := dial(t, r.Addr().String())
	if d := <-drops; d.LocalAddr.String() != r.Addr().String() || d.RemoteAddr.String() != c.LocalAddr().String() {
		t.Errorf("drop: %+v", d)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if err := r.Listen(t.Context(), "unix", filepath.Join(t.TempDir(), "s")); err != nil {
		t.Fatal(err)
	}
	u, err := net.Dial("unix", r.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	if d := <-drops; d.RemoteAddr.String() != "" && d.RemoteAddr.String() != "@" {
		t.Errorf("drop of a peer without an address: %+v", d)
	}
}

// pair is two workers under one supervisor that listen on one address.
func pairOfRigs(t *testing.T, first, second ServerOptions, opts ...ListenOption) (a, b *rig) {
	t.Helper()
	noLeak(t)
	f, bd := bound(t, "tcp", "127.0.0.1")
	rigs := [2]*rig{}
	for i, o := range []ServerOptions{first, second} {
		w, m := joined(t)
		m.grants(f, bd)
		o.Worker = w
		rigs[i] = newRig(t, o)
		rigs[i].listen("127.0.0.1:0", opts...)
	}
	return rigs[0], rigs[1]
}

// A worker that is full leaves what comes to the others, without a drop.
func TestServerMaxConnectionsShared(t *testing.T) {
	a, b := pairOfRigs(t, ServerOptions{MaxConnections: 1}, ServerOptions{MaxConnections: -1})
	for range 4 {
		c := dial(t, a.Addr().String())
		defer c.Close()
	}
	first := a.next()
	b.SetMaxConnections(3) // whatever a leaves
	for range 3 {
		b.next()
	}
	// All are full: the next one waits in the queue, and is served when there is room.
	c := dial(t, a.Addr().String())
	if a.Connections() != 1 || b.Connections() != 3 {
		t.Errorf("%d and %d connections", a.Connections(), b.Connections())
	}
	_ = first.Close()
	_, _ = a.next().Write([]byte("W"))
	if b, err := c.r.ReadByte(); err != nil || b != 'W' {
		t.Errorf("the one that waited: %q %v", b, err)
	}
	a.saw("listening connection connection")
	b.saw("listening connection connection connection")
}

// A limit that is lowered reaches a server that waits in accept.
func TestServerMaxConnectionsLowered(t *testing.T) {
	a, b := pairOfRigs(t, ServerOptions{}, ServerOptions{MaxConnections: -1})
	a.connect()
	a.SetMaxConnections(1)
	a.SetMaxConnections(2)
	a.connect()
	a.SetMaxConnections(-1)
	b.SetMaxConnections(0)
	for range 5 { // at most one more is a's
		_ = dial(t, a.Addr().String())
	}
	eventually(t, "all are served", func() bool { return a.Connections()+b.Connections() == 7 })
	if n := a.Connections(); n > 3 {
		t.Errorf("%d connections where none more may be", n)
	}
	eventually(t, "all are told", func() bool { return len(a.socks)+len(b.socks) == 5 })
}

func TestServerDropMaxConnections(t *testing.T) {
	a, b := pairOfRigs(t, ServerOptions{MaxConnections: -1, DropMaxConnections: true}, ServerOptions{MaxConnections: -1})
	if err := atEnd(t, dial(t, a.Addr().String())); err != io.EOF {
		t.Error(err)
	}
	a.saw("listening drop")
	b.saw("listening")
}

// An exclusive socket has nobody else to take what is too much.
func TestServerMaxConnectionsExclusive(t *testing.T) {
	noLeak(t)
	f, bd := bound(t, "tcp", "127.0.0.1")
	w, m := joined(t)
	asked := m.grants(f, bd)
	r := newRig(t, ServerOptions{Worker: w, MaxConnections: -1})
	r.listen("127.0.0.1:0", Exclusive())
	if l := <-asked; !l.Exclusive {
		t.Errorf("asked for %+v", l)
	}
	if err := atEnd(t, dial(t, r.Addr().String())); err != io.EOF {
		t.Error(err)
	}
	r.saw("listening drop")
}

// Options reach the supervisor, which shares the socket.
func TestServerListenSupervised(t *testing.T) {
	noLeak(t)
	f, bd := bound(t, "tcp", "127.0.0.1")
	w, m := joined(t)
	asked := m.grants(f, bd)
	r := newRig(t, ServerOptions{Worker: w})
	for what, c := range map[string]struct {
		config ListenConfig
		want   proto.Listen
	}{
		"zero":     {ListenConfig{}, proto.Listen{Network: "tcp"}},
		"options":  {ListenConfig{Host: "::1", Port: 9, Backlog: 7, IPv6Only: true}, proto.Listen{Network: "tcp", Address: "::1", Port: 9, Backlog: 7, IPv6Only: true}},
		"path":     {ListenConfig{Path: "a.sock", ReadableAll: true, WritableAll: true}, proto.Listen{Network: "unix", Address: "a.sock", ReadableAll: true, WritableAll: true}},
		"policy":   {ListenConfig{Port: 8, Policy: "round_robin"}, proto.Listen{Network: "tcp", Port: 8, Policy: "round_robin"}},
		"abstract": {ListenConfig{Path: "\x00a"}, proto.Listen{Network: "unix", Address: "@a"}},
		"name":     {ListenConfig{Name: "main", Backlog: 5}, proto.Listen{Name: "main", Backlog: 5}},
		"loopback": {ListenConfig{Host: "localhost", Port: 80, Exclusive: true}, proto.Listen{Network: "tcp", Address: "127.0.0.1", Port: 80, Exclusive: true}},
	} {
		if err := r.ListenWith(t.Context(), c.config); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if got := <-asked; got != c.want {
			t.Errorf("%s: asked for %+v", what, got)
		}
		if what == "path" && r.Addr().String() != "a.sock" {
			t.Errorf("address %q", r.Addr())
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestServerBlockList(t *testing.T) {
	list := new(BlockList)
	r := newRig(t, ServerOptions{BlockList: list})
	r.listen(":0") // dual stack: an IPv4 peer may show as an IPv6 one
	_ = list.AddAddress(netip.MustParseAddr("127.0.0.1"))
	if err := atEnd(t, dial(t, "127.0.0.1:"+r.port())); err != io.EOF {
		t.Errorf("a peer that is blocked: %v", err)
	}
	_ = dial(t, "[::1]:"+r.port())
	r.next()
	_ = list.AddSubnet(netip.MustParsePrefix("::/0"))
	if err := atEnd(t, dial(t, "[::1]:"+r.port())); err != io.EOF {
		t.Errorf("a peer that is blocked while the server runs: %v", err)
	}
	r.saw("listening connection") // neither a connection nor a drop
	if r.Connections() != 1 {
		t.Errorf("%d connections", r.Connections())
	}
}
