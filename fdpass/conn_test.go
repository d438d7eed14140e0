//go:build linux

package fdpass

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// descriptors returns how many files this process has open.
func descriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// noLeak fails the test when it ends with more open files than it began with.
func noLeak(t *testing.T) {
	t.Helper()
	before := descriptors(t)
	t.Cleanup(func() {
		if after := descriptors(t); after != before {
			t.Errorf("%d files are open, %d before", after, before)
		}
	})
}

func pair(t *testing.T) (a, b *Conn) {
	t.Helper()
	a, b, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close(); _ = b.Close() })
	return a, b
}

// TestMain starts the runtime's poller, whose descriptors stay.
func TestMain(m *testing.M) {
	if a, b, err := Pair(); err == nil {
		_ = a.Close()
		_ = b.Close()
	}
	os.Exit(m.Run())
}

func file(t *testing.T, content string) *File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := NewFile(fd)
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func TestFilesArrive(t *testing.T) {
	noLeak(t)
	a, b := pair(t)
	if err := a.Send([]byte("two"), file(t, "first"), file(t, "second")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 16)
	n, files, err := b.Recv(buf, 2)
	if err != nil || string(buf[:n]) != "two" || len(files) != 2 {
		t.Fatalf("recv: %q, %d files, %v", buf[:n], len(files), err)
	}
	defer CloseAll(files)
	for i, want := range []string{"first", "second"} {
		n, err := unix.Pread(files[i].Fd(), buf, 0)
		if err != nil || string(buf[:n]) != want {
			t.Errorf("file %d: %q %v", i, buf[:n], err)
		}
		flags, err := unix.FcntlInt(uintptr(files[i].Fd()), unix.F_GETFD, 0)
		if err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("file %d is inheritable", i)
		}
	}
}

func TestMostFiles(t *testing.T) {
	noLeak(t)
	a, b := pair(t)
	f := file(t, "x")
	list := make([]*File, MaxFiles)
	for i := range list {
		list[i] = f
	}
	if err := a.Send([]byte("x"), append(list, f)...); !errors.Is(err, ErrTooManyFiles) {
		t.Fatalf("one file too many: %v", err)
	}
	if err := a.Send(make([]byte, MaxMessage), list...); err != nil {
		t.Fatal(err)
	}
	n, files, err := b.Recv(make([]byte, MaxMessage), MaxFiles)
	if err != nil || n != MaxMessage || len(files) != MaxFiles {
		t.Fatalf("recv: %d bytes, %d files, %v", n, len(files), err)
	}
	CloseAll(files)
}

// What breaks a limit is refused with its files, and the next packet is whole.
func TestReceiverLimits(t *testing.T) {
	for name, c := range map[string]struct {
		buf, files int
		want       error
	}{
		"truncated":      {2, 3, ErrTooLarge},
		"too many files": {16, 1, ErrTooManyFiles},
		"no files":       {16, 0, ErrTooManyFiles},
	} {
		t.Run(name, func(t *testing.T) {
			noLeak(t)
			a, b := pair(t)
			if err := a.Send([]byte("packet"), file(t, "x"), file(t, "y")); err != nil {
				t.Fatal(err)
			}
			if err := a.Send([]byte("ok")); err != nil {
				t.Fatal(err)
			}
			if n, files, err := b.Recv(make([]byte, c.buf), c.files); !errors.Is(err, c.want) || n != 0 || files != nil {
				t.Fatalf("recv: %d %v %v, want %v", n, files, err, c.want)
			}
			if n, _, err := b.Recv(make([]byte, 16), 0); err != nil || n != 2 {
				t.Fatalf("next packet: %d %v", n, err)
			}
		})
	}
}

// At the descriptor limit the kernel drops files: those that came are closed.
func TestFilesLost(t *testing.T) {
	noLeak(t)
	a, b := pair(t)
	if err := a.Send([]byte("x"), file(t, "x"), file(t, "y"), file(t, "z")); err != nil {
		t.Fatal(err)
	}
	restore := limitFree(t, 1)
	_, files, rerr := b.Recv(make([]byte, 16), 3)
	restore()
	if !errors.Is(rerr, ErrFilesLost) || files != nil {
		t.Fatalf("recv: %v %v", files, rerr)
	}
}

func TestSendLimits(t *testing.T) {
	a, b := pair(t)
	closed := NewFile(-1)
	for name, c := range map[string]struct {
		data  []byte
		files []*File
		want  error
	}{
		"empty":       {nil, nil, ErrTooLarge},
		"too large":   {make([]byte, MaxMessage+1), nil, ErrTooLarge},
		"closed file": {[]byte("x"), []*File{closed}, ErrClosed},
	} {
		if err := a.Send(c.data, c.files...); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	_ = b.Close()
	if err := a.Send([]byte("x")); !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("peer gone: %v", err)
	}
}

func TestFullBuffer(t *testing.T) {
	a, b := pair(t)
	data := make([]byte, MaxMessage)
	sent := 0
	var err error
	for err = a.TrySend(data); err == nil; err = a.TrySend(data) {
		sent++
	}
	if !errors.Is(err, unix.EAGAIN) || sent == 0 {
		t.Fatalf("after %d packets: %v", sent, err)
	}
	_ = a.SetWriteDeadline(time.Now())
	if err := a.Send(data); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("send past its deadline: %v", err)
	}
	_ = a.SetWriteDeadline(time.Time{})
	var sender sync.WaitGroup
	sender.Go(func() {
		if err := a.Send([]byte("last")); err != nil {
			t.Error(err)
		}
	})
	buf := make([]byte, MaxMessage)
	for n := 0; n != 4; {
		if n, _, err = b.Recv(buf, 0); err != nil {
			t.Fatal(err)
		}
	}
	sender.Wait()
	if !bytes.Equal(buf[:4], []byte("last")) {
		t.Fatalf("last packet: %q", buf[:4])
	}
}

func TestEnd(t *testing.T) {
	noLeak(t)
	a, b := pair(t)
	_ = a.Send([]byte("last words"))
	_ = a.Close()
	if n, _, err := b.Recv(make([]byte, 16), 0); err != nil || n != 10 {
		t.Fatalf("what was sent before the end: %d %v", n, err)
	}
	if _, _, err := b.Recv(make([]byte, 16), 0); err != io.EOF {
		t.Fatalf("end: %v", err)
	}
	if err := a.Close(); !errors.Is(err, ErrClosed) {
		t.Fatalf("second close: %v", err)
	}
}

// Close wakes a Recv that waits.
func TestCloseWakesRecv(t *testing.T) {
	c, _ := pair(t)
	waiting, errs := make(chan struct{}), make(chan error, 1)
	go func() { close(waiting); _, _, err := c.Recv(make([]byte, 16), 0); errs <- err }()
	<-waiting
	_ = c.Close()
	err := <-errs
	if err == nil {
		t.Fatal("recv of a closed Conn returned a packet")
	}
	if !errors.Is(err, ErrClosed) {
		// os.File's raw reads return poll.ErrFileClosing, which mapClosed does
		// not know: the doc comment promises ErrClosed.
		t.Fatalf("recv during close: %v, want ErrClosed", err)
	}
}

func TestNewConnRefuses(t *testing.T) {
	noLeak(t)
	if _, err := NewConn(file(t, "x")); !errors.Is(err, unix.ENOTSOCK) {
		t.Errorf("a file: %v", err)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewConn(NewFile(fd)); !errors.Is(err, unix.EPROTOTYPE) {
		t.Errorf("a stream socket: %v", err)
	}
	if _, err := NewConn(NewFile(-1)); !errors.Is(err, ErrClosed) {
		t.Errorf("nothing: %v", err)
	}
}

func TestDetach(t *testing.T) {
	noLeak(t)
	a, b := pair(t)
	f, err := b.Detach()
	if err != nil {
		t.Fatal(err)
	}
	c, err := NewConn(f)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = a.Send([]byte("x"))
	if n, _, err := c.Recv(make([]byte, 1), 0); err != nil || n != 1 {
		t.Fatalf("recv: %d %v", n, err)
	}
}

// O_NONBLOCK belongs to the open file, which other processes share: a Dup and a
// passed file must leave it as it is, set or not.
func TestBlockingModeKept(t *testing.T) {
	noLeak(t)
	for _, nonblock := range []bool{false, true} {
		a, b := pair(t)
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.SetNonblock(fd, nonblock); err != nil {
			t.Fatal(err)
		}
		f := NewFile(fd)
		d, err := f.Dup()
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Send([]byte("x"), d); err != nil {
			t.Fatal(err)
		}
		_, files, err := b.Recv(make([]byte, 1), 1)
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range append(files, f, d) {
			flags, err := unix.FcntlInt(uintptr(g.Fd()), unix.F_GETFL, 0)
			if err != nil || (flags&unix.O_NONBLOCK != 0) != nonblock {
				t.Errorf("%v: flags %#x %v, want non-blocking %v", g, flags, err, nonblock)
			}
			if err := g.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}
