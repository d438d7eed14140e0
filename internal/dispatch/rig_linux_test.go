package dispatch

import (
	"fmt"
	"io"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"
	"unsafe"

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
	t.Cleanup(func() { d.Close(); d.aside.Wait() })
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
	page []int64 // accepted by itself, closed
}

func (r *rig) join(id uint64, slot int) *fake {
	r.t.Helper()
	f, m := newFake(r.t, id)
	m.Slot, m.Limit, m.Admitted = slot, r.limit, true
	if err := r.d.Join(1, m); err != nil {
		r.t.Fatal(err)
	}
	return f
}

// newFake makes both ends of a channel.
func newFake(t testing.TB, id uint64) (*fake, Member) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	far := fdpass.NewFile(pair[1])
	copied, err := far.Dup()
	if err != nil {
		t.Fatal(err)
	}
	page, err := fdpass.NewPage("connections")
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{t: t, id: id}
	mem, err := unix.Mmap(page.Fd(), 0, 16, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	f.page = unsafe.Slice((*int64)(unsafe.Pointer(&mem[0])), 2)
	if f.ch, err = fdpass.NewConn(far); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.ch.Close(); _ = unix.Munmap(mem) })
	return f, Member{Worker: id, Channel: fdpass.NewFile(pair[0]), Far: copied, Page: page}
}

// read accepts the next hand-over.
func (f *fake) read() ([]*fdpass.File, error) {
	buf := make([]byte, 64)
	n, files, err := f.ch.Recv(buf, proto.MaxHandover)
	if err != nil {
		return nil, err
	}
	h, err := proto.ReadHandover(buf[:n])
	if err == nil && h.Count != len(files) {
		err = fmt.Errorf("hand-over of %d with %d files", h.Count, len(files))
	}
	return files, err
}

func (f *fake) say(s proto.Standing) {
	b := make([]byte, proto.HandoverSize)
	s.Put(b)
	_ = f.ch.Send(b)
}

// take accepts the next hand-over and answers each connection with its id.
func (f *fake) take() (int, error) {
	files, err := f.read()
	f.answer(files)
	return len(files), err
}

func (f *fake) answer(files []*fdpass.File) {
	for _, file := range files {
		_, _ = unix.Write(file.Fd(), []byte{byte(f.id)})
		_ = file.Close()
	}
}

// leave is what the master says when a worker is gone.
func (r *rig) leave(f *fake) {
	_ = f.ch.Close()
	r.d.Leave(0, f.id)
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
	r.t.Cleanup(func() { _ = c.Close() })
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

func (r *rig) settle() { r.d.settle() }

// settle waits until the dispatcher has seen everything that was done so far, and
// nothing is being taken back: what was ready before the first command is in the
// events that came with it, and the second command comes after these.
func (d *Dispatcher) settle() {
	for {
		for range 2 {
			d.do(func() {})
		}
		if d.reading.Load() == 0 {
			return
		}
		runtime.Gosched()
	}
}

// accepted waits until so many were accepted.
func (r *rig) accepted(want uint64) {
	r.t.Helper()
	for range 10_000 {
		if got, _, _ := r.d.Counts(1); got == want {
			return
		}
		runtime.Gosched()
	}
	got, _, _ := r.d.Counts(1)
	r.t.Fatalf("%d accepted, want %d", got, want)
}

// patient lets nobody ever be late.
func (r *rig) patient() { r.d.do(func() { r.d.patience = time.Hour }) }

// late lets everybody be late who has something unread.
func (r *rig) late() { r.d.do(r.d.lapse) }

// lapse lets the time of patience be over, for tests.
func (d *Dispatcher) lapse() {
	d.now = d.now.Add(loyalty * d.patience)
	d.overdue()
	d.now = time.Now()
}
