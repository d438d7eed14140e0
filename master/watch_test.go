package master

import (
	"net"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/internal/proto"
	"github.com/f72e338e/supervisord/internal/socket"
)

// TestWatch: connections wake nobody; a shut-down is told at once, of the right
// socket, and nothing of one that was removed.
func TestWatch(t *testing.T) {
	before := openFiles(t)
	w, err := newWatch()
	if err != nil {
		t.Fatal(err)
	}
	told, ended := make(chan proto.HandleID, 1), make(chan struct{})
	go func() {
		defer close(ended)
		w.run(func(s watched) { told <- s.handle })
	}()
	specs := []proto.SocketSpec{{Network: "tcp", Address: "127.0.0.1"}, {Network: "unix", Address: filepath.Join(t.TempDir(), "s")}, {Network: "tcp", Address: "::1"}}
	for i, spec := range specs {
		f, b, err := socket.Bind(spec)
		if err != nil {
			t.Fatal(err)
		}
		id := proto.HandleID(i + 1)
		if err := w.add(id, 0, f); err != nil {
			t.Fatal(err)
		}
		other, err := f.Dup() // as a worker holds it
		if err != nil {
			t.Fatal(err)
		}
		woken := w.wakes.Load()
		for range 500 {
			c, err := net.Dial(spec.Network, b.Address)
			if err != nil {
				t.Fatal(err)
			}
			fd, _, err := unix.Accept(f.Fd())
			if err != nil {
				t.Fatal(err)
			}
			_ = unix.Close(fd)
			_ = c.Close()
		}
		if n := w.wakes.Load() - woken; n > 1 { // the first look may come late
			t.Errorf("%s: 500 connections woke the master %d times", spec.Network, n)
		}
		var took []time.Duration
		for range 20 {
			begun := time.Now()
			if err := unix.Shutdown(f.Fd(), unix.SHUT_RDWR); err != nil {
				t.Fatal(err)
			}
			got := <-told
			for got >= markers { // one shutdown(2) may be told of twice
				got = <-told
			}
			if got != id {
				t.Fatalf("told of %d, not of %d", got, id)
			}
			_, _, err := socket.Mend(other.Fd(), spec.Network, b)
			took = append(took, time.Since(begun))
			if spec.Network == "unix" {
				break // dead for ever
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		slices.Sort(took)
		t.Logf("%s %s: from shutdown(2) to listen(2): median %v, longest %v", spec.Network, b.Address, took[len(took)/2], took[len(took)-1])
		w.remove(f)
		_ = f.Close()
		tellMarker(t, w, told, markers+2*id, func(proto.HandleID) {}) // what was on its way before
		_ = unix.Shutdown(other.Fd(), unix.SHUT_RDWR)                 // nobody's any more
		_ = other.Close()
		tellMarker(t, w, told, markers+2*id+1, func(id proto.HandleID) { t.Errorf("told of %d after it was removed", id) })
	}
	w.close()
	<-ended
	if n := openFiles(t); n > before { // fewer: what an earlier test had is closed by now
		t.Errorf("%d descriptors, %d before", n, before)
	}
}

// markers is the first of the handles that tellMarker shuts down.
const markers proto.HandleID = 99

// tellMarker shuts a socket of its own down, and calls other for what is told of
// other sockets before that. What earlier markers left over is nobody's concern.
func tellMarker(t *testing.T, w *watch, told <-chan proto.HandleID, marker proto.HandleID, other func(proto.HandleID)) {
	t.Helper()
	f, _, err := socket.Bind(proto.SocketSpec{Network: "tcp", Address: "127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.add(marker, 0, f); err != nil {
		t.Fatal(err)
	}
	if err := unix.Shutdown(f.Fd(), unix.SHUT_RDWR); err != nil {
		t.Fatal(err)
	}
	for id := <-told; id != marker; id = <-told {
		if id < markers {
			other(id)
		}
	}
	w.remove(f)
	_ = f.Close()
}
