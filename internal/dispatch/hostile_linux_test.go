package dispatch

import (
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
	"github.com/f72e338e/supervisord/internal/proto"
)

// TestHostile: whatever a worker says on its channel, it loses at most its own.
func TestHostile(t *testing.T) {
	var reported atomic.Int64
	r := newRig(t, RoundRobin, Options{Report: func(_, worker uint64, err error) {
		if worker != 9 {
			reported.Add(1)
		}
	}})
	good := r.join(9, 0)
	var wg sync.WaitGroup
	good.serve(&wg)
	for i := range 200 {
		bad := r.join(uint64(100+i), 1)
		b := make([]byte, rand.IntN(20)+1)
		for j := range b {
			b[j] = byte(rand.IntN(4))
		}
		_ = bad.ch.Send(b)
		_ = bad.ch.Send([]byte{1, 0, 0, 0, 1, 0, 0, 0}) // a hand-over, from the wrong side
		if i%2 == 0 {
			_ = bad.ch.Close()
		}
		r.d.Leave(1, uint64(100+i))
	}
	for range 50 {
		if got := r.ask(); got != 9 {
			t.Fatalf("answered by %d", got)
		}
	}
	if reported.Load() == 0 {
		t.Error("no worker was reported")
	}
	r.leave(good)
	wg.Wait()
}

// TestNothingLostNothingTwice: workers come, refuse, die and leave all the time,
// and every connection is answered exactly once.
func TestNothingLostNothingTwice(t *testing.T) {
	before := openFiles(t)
	r := newRig(t, RoundRobin, Options{Batch: 8})
	anchor := r.join(1, 0)
	var wg sync.WaitGroup
	anchor.serve(&wg)
	stop := make(chan struct{})
	wg.Add(1)
	go func() {
		defer wg.Done()
		for id := uint64(2); ; id++ {
			select {
			case <-stop:
				return
			default:
			}
			f, m := newFake(t, id%200+2)
			m.Slot, m.Admitted = int(id%7), true
			if r.d.Join(1, m) != nil { // it has ended
				_ = f.ch.Close()
				return
			}
			for range rand.IntN(4) {
				if rand.IntN(3) == 0 { // dies with what is in its channel
					break
				}
				if rand.IntN(5) == 0 {
					f.say(proto.Full)
					f.say(proto.Room)
				}
				if _, err := f.take(); err != nil {
					break
				}
			}
			r.leave(f)
		}
	}()
	var clients sync.WaitGroup
	var answered atomic.Int64
	for range 8 {
		clients.Add(1)
		go func() {
			defer clients.Done()
			for range 250 {
				c, err := net.Dial("tcp", r.addr)
				if err != nil {
					t.Error(err)
					return
				}
				_ = c.SetDeadline(time.Now().Add(20 * time.Second))
				b, err := io.ReadAll(c)
				if err != nil || len(b) != 1 {
					t.Errorf("answer %v, %v", b, err)
					return
				}
				answered.Add(1)
				_ = c.Close()
			}
		}()
	}
	clients.Wait()
	close(stop)
	r.d.Close()
	_ = anchor.ch.Close()
	wg.Wait()
	if answered.Load() != 2000 {
		t.Errorf("%d of 2000 answered", answered.Load())
	}
	r.d.aside.Wait()
	if after := openFiles(t); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

func openFiles(t testing.TB) int {
	t.Helper()
	e, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(e)
}

// TestFilesThatTakeTheirTime: a worker sends a file whose close(2) waits, with a
// message and in one that is never read. Nobody else waits for it.
func TestFilesThatTakeTheirTime(t *testing.T) {
	r := newRig(t, RoundRobin, Options{})
	good := r.join(9, 0)
	var wg sync.WaitGroup
	good.serve(&wg)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for id := range uint64(2) {
		slow, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Connect(slow, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: l.Addr().(*net.TCPAddr).Port}); err != nil {
			t.Fatal(err)
		}
		peer, err := l.Accept() // and reads nothing
		if err != nil {
			t.Fatal(err)
		}
		defer peer.Close() // before the rig's end, which waits
		for err == nil {
			_, err = unix.SendmsgN(slow, make([]byte, 1<<16), nil, nil, unix.MSG_DONTWAIT)
		}
		if err := unix.SetsockoptLinger(slow, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: 100}); err != nil {
			t.Fatal(err)
		}
		bad := r.join(id+1, 1)
		say := func() {
			b := make([]byte, proto.HandoverSize)
			proto.Room.Put(b)
			f := fdpass.NewFile(slow)
			if err := bad.ch.Send(b, f); err != nil {
				t.Error(err)
			}
			_ = unix.Close(f.Release())
		}
		if id == 0 {
			say()
		} else {
			r.d.do(func() { // so that it has not read that when it leaves
				say()
				for _, m := range r.d.handles[1].members {
					if m.worker == bad.id {
						r.d.dismiss(m)
						break
					}
				}
			})
		}
		begun := time.Now()
		for range 5 {
			if got := r.ask(); got != 9 {
				t.Errorf("answered by %d", got)
			}
		}
		if took := time.Since(begun); took > 5*time.Second {
			t.Errorf("others waited %v", took)
		}
	}
	r.leave(good)
	wg.Wait()
}
