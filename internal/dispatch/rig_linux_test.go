package dispatch

import (
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
	"github.com/f72e338e/supervisord/internal/proto"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a dispatcher on a loopback port.
type rig struct {
	t    testing.TB
	d    *Dispatcher
	addr string

	limit int64 // of the members that join
}

func newRig(t testing.TB, policy Policy, o Options) *rig {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 511); err != nil {
		t.Fatal(err)
	}
	sa, _ := unix.Getsockname(fd)
	d, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	d.Add(1, policy)
	if err := d.AddSocket(1, fdpass.NewFile(fd)); err != nil {
		t.Fatal(err)
	}
	return &rig{t: t, d: d, addr: fmt.Sprintf("127.0.0.1:%d", sa.(*unix.SockaddrInet4).Port)}
}

// fake is a worker's end of a channel, driven by the test.
type fake struct {
	t    testing.TB
	id   uint64
	ch   *fdpass.Conn
	page []byte
}

func (r *rig) join(id uint64, slot int) *fake {
	r.t.Helper()
	near, far, err := fdpass.Pair()
	if err != nil {
		r.t.Fatal(err)
	}
	end, err := near.Detach()
	if err != nil {
		r.t.Fatal(err)
	}
	mem, err := unix.MemfdCreate("count", unix.MFD_CLOEXEC)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := unix.Ftruncate(mem, 4096); err != nil {
		r.t.Fatal(err)
	}
	f := &fake{t: r.t, id: id, ch: far}
	if f.page, err = unix.Mmap(mem, 0, 8, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = far.Close(); _ = unix.Munmap(f.page) })
	if err := r.d.Join(1, Member{Worker: id, Slot: slot, Limit: r.limit, Channel: end, Page: fdpass.NewFile(mem), Admitted: true}); err != nil {
		r.t.Fatal(err)
	}
	return f
}

// read takes the next hand-over without a verdict.
func (f *fake) read() (proto.Handover, []*fdpass.File, error) {
	buf := make([]byte, 64)
	n, files, err := f.ch.Recv(buf, proto.MaxHandover)
	if err != nil {
		return proto.Handover{}, nil, err
	}
	h, err := proto.ReadHandover(buf[:n])
	if err == nil && int(h.Count) != len(files) {
		err = fmt.Errorf("hand-over of %d with %d files", h.Count, len(files))
	}
	return h, files, err
}

func (f *fake) say(v proto.Verdict) {
	b := make([]byte, proto.HandoverSize)
	v.Put(b)
	_ = f.ch.Send(b)
}

// take accepts the next hand-over and answers each connection with its id.
func (f *fake) take() (int, error) {
	h, files, err := f.read()
	if err != nil {
		return 0, err
	}
	f.say(proto.Verdict{First: h.First, Count: h.Count, What: proto.Accepted})
	for _, file := range files {
		_, _ = unix.Write(file.Fd(), []byte{byte(f.id)})
		_ = file.Close()
	}
	return len(files), nil
}

// serve takes hand-overs until its channel ends.
func (f *fake) serve(wg *sync.WaitGroup) {
	wg.Add(1)
	go func() {
		defer wg.Done()
		for {
			if _, err := f.take(); err != nil {
				return
			}
		}
	}()
}

func (r *rig) dial() net.Conn {
	r.t.Helper()
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	return c
}

// who returns the id of the worker that answers.
func who(t testing.TB, c net.Conn) byte {
	t.Helper()
	defer func() { _ = c.Close() }()
	b, err := io.ReadAll(c)
	if err != nil || len(b) != 1 {
		t.Fatalf("answer %v, %v", b, err)
	}
	return b[0]
}

func (r *rig) ask() byte { r.t.Helper(); return who(r.t, r.dial()) }
