package dispatch

import (
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
	"github.com/f72e338e/supervisord/internal/proto"
)

// What a worker may do to its end of the channel, and to its page, is its own affair.

func (f *fake) control(fn func(fd int)) {
	f.t.Helper()
	raw, err := f.ch.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) { fn(int(fd)) })
	}
	if err != nil {
		f.t.Fatal(err)
	}
}

// TestChannelShutDown: after shutdown(2) a read says that there is nothing, for ever.
func TestChannelShutDown(t *testing.T) {
	for _, how := range []int{unix.SHUT_RD, unix.SHUT_RDWR} {
		r := newRig(t, RoundRobin, Options{})
		r.patient()
		f := r.join(1, 0)
		c := r.dial()
		r.accepted(1)
		f.control(func(fd int) { _ = unix.Shutdown(fd, how) })
		left := make(chan struct{})
		go func() { defer close(left); r.d.Leave(0, 1) }()
		timer := time.NewTimer(5 * time.Second)
		select {
		case <-left:
		case <-timer.C:
			panic("the dispatcher hangs")
		}
		timer.Stop()
		other := r.join(2, 1)
		if n, err := other.take(); n != 1 || err != nil {
			t.Fatalf("the other worker got %d: %v", n, err)
		}
		who(t, c)
	}
}

// TestChannelWithCredentials: a worker asks for more than files with each message.
func TestChannelWithCredentials(t *testing.T) {
	r := newRig(t, RoundRobin, Options{})
	r.patient()
	f := r.join(1, 0)
	f.control(func(fd int) {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1); err != nil {
			t.Error(err)
		}
	})
	c := r.dial()
	r.accepted(1)
	other := r.join(2, 1)
	r.leave(f)
	if n, err := other.take(); n != 1 || err != nil {
		t.Fatalf("the other worker got %d: %v", n, err)
	}
	who(t, c)
}

// TestPageThatFlips: a worker's count says that it has room, and that it has none, as
// often as it can.
func TestPageThatFlips(t *testing.T) {
	r := newRig(t, RoundRobin, Options{})
	r.limit = 1 << 30
	bad := r.join(1, 0)
	r.limit = 0
	good := r.join(2, 1)
	var stop atomic.Bool
	var wg sync.WaitGroup
	bad.serve(&wg)
	good.serve(&wg)
	wg.Go(func() {
		for !stop.Load() {
			atomic.StoreInt64(&bad.page[0], 1<<31)
			atomic.StoreInt64(&bad.page[0], 0)
		}
	})
	for range 2000 {
		_ = r.dial().Close()
	}
	stop.Store(true)
	r.leave(bad)
	r.leave(good)
	wg.Wait()
}

// TestEmptyPacketWithFiles: it ends the channel, and nothing of it stays open.
func TestEmptyPacketWithFiles(t *testing.T) {
	before := openFiles(t)
	r := newRig(t, RoundRobin, Options{})
	for range 10 {
		f := r.join(1, 0)
		f.control(func(fd int) {
			oob := unix.UnixRights(0, 1, 2) // unix.Sendmsg would add a byte
			msg := unix.Msghdr{Control: &oob[0]}
			msg.SetControllen(len(oob))
			if _, _, errno := unix.Syscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&msg)), unix.MSG_DONTWAIT); errno != 0 {
				t.Error(errno)
			}
		})
		r.settle()
		r.leave(f)
	}
	r.d.Close()
	r.d.aside.Wait()
	if after := openFiles(t); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

// TestSourcesInTurn: a socket on which more comes than is taken keeps no other of the
// handle waiting.
func TestSourcesInTurn(t *testing.T) {
	r := newRig(t, RoundRobin, Options{Batch: 1})
	r.patient()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var dup int
	raw, err := l.(*net.TCPListener).SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) { dup, _ = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) })
	}
	if err == nil {
		err = r.d.AddSocket(1, fdpass.NewFile(dup))
	}
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		r.dial()
	}
	second, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	f := r.join(1, 0)
	for range 5 {
		r.dial() // one more for each that is taken
		if _, err := f.take(); err != nil {
			t.Fatal(err)
		}
	}
	_ = second.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := second.Read(make([]byte, 1)); err != nil {
		t.Errorf("after five of others: %v", err)
	}
	runtime.KeepAlive(l)
}

// TestManyFiles: whatever a message may carry is received, or the kernel closes the
// rest on the dispatcher's thread.
func TestManyFiles(t *testing.T) {
	r := newRig(t, RoundRobin, Options{})
	f := r.join(1, 0)
	f.control(func(fd int) {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1); err != nil {
			t.Error(err)
		}
	})
	r.d.do(func() { // on the thread that would read it
		files := make([]*fdpass.File, fdpass.MaxFiles)
		for i := range files {
			files[i] = fdpass.NewFile(0)
		}
		if err := f.ch.Send([]byte("word"), files...); err != nil {
			t.Error(err)
		}
		n, fds, errno := r.d.scratch.recv(r.d.handles[1].members[0].fd)
		if n != 4 || len(fds) != fdpass.MaxFiles || errno != 0 {
			t.Errorf("received %d bytes, %d files, %v", n, len(fds), errno)
		}
		r.d.discard(fds...)
	})
}

// TestStuckReader: a worker looks at its channel, and the memory that it reads into
// does not come. The kernel holds the lock of the socket meanwhile; all that waits for
// it is what is in that channel.
func TestStuckReader(t *testing.T) {
	const size = 4096
	mem, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(mem) }()
	faults := missing(t, mem)
	r := newRig(t, RoundRobin, Options{})
	r.patient()
	f := r.join(1, 0)
	first := r.dial()
	r.accepted(1)
	var worker sync.WaitGroup
	f.control(func(fd int) {
		own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		worker.Go(func() {
			_, _, _ = unix.Recvfrom(own, mem[:proto.HandoverSize], unix.MSG_PEEK)
			_ = unix.Close(own)
		})
	})
	fault := make([]byte, 64)
	if _, err := faults.Read(fault); err != nil { // it is in there
		t.Fatal(err)
	}
	other := r.join(2, 1)
	r.late()
	second := r.dial()
	if n, err := other.take(); n != 1 || err != nil {
		t.Fatalf("while another reads back, a worker got %d: %v", n, err)
	}
	if got := who(t, second); got != 2 {
		t.Errorf("answered by %d", got)
	}
	r.leave(f)
	third := r.dial()
	if n, err := other.take(); n != 1 || err != nil {
		t.Fatalf("while it leaves, another worker got %d: %v", n, err)
	}
	if got := who(t, third); got != 2 {
		t.Errorf("answered by %d", got)
	}
	_ = faults.Close() // the memory comes
	worker.Wait()
	if n, err := other.take(); n != 1 || err != nil {
		t.Fatalf("what was read back: %d, %v", n, err)
	}
	if got := who(t, first); got != 2 {
		t.Errorf("answered by %d", got)
	}
}

// missing lets whoever touches mem wait until the returned file is closed
// (userfaultfd(2)); it says so by a message that can be read.
func missing(t *testing.T, mem []byte) *os.File {
	t.Helper()
	fd, _, errno := unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC, 0, 0)
	if errno != 0 {
		t.Skipf("userfaultfd needs root: %v", errno)
	}
	file := os.NewFile(fd, "userfaultfd")
	t.Cleanup(func() { _ = file.Close() })
	control := func(request uintptr, arg unsafe.Pointer) {
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, request, uintptr(arg)); errno != 0 {
			t.Fatalf("ioctl %#x: %v", request, errno)
		}
	}
	api := struct{ api, features, ioctls uint64 }{api: 0xaa} // UFFD_API
	control(0xc018aa3f, unsafe.Pointer(&api))                // UFFDIO_API
	area := struct{ start, size, mode, ioctls uint64 }{uint64(uintptr(unsafe.Pointer(&mem[0]))), uint64(len(mem)), 1, 0}
	control(0xc020aa00, unsafe.Pointer(&area)) // UFFDIO_REGISTER, of pages that are missing
	return file
}
