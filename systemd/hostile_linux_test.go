package systemd

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
)

// Whatever a sender does, the next message is received and no file stays.
func TestHostile(t *testing.T) {
	noLeak(t)
	r := receiver(t)
	fd := sender(t)
	f, _ := pipe(t)
	files := make([]int, maxFiles)
	for i := range files {
		files[i] = f.Fd()
	}
	long := strings.Repeat("x", maxNotification-len("STATUS="))
	quiet := descriptors(t)
	for _, c := range []struct {
		name, data string
		files      int
		want       any // a Notification or an error
	}{
		{"empty", "", 0, Notification{}},
		{"empty with files", "", 3, Notification{}},
		{"a zero byte", "\x00", 0, Notification{}},
		{"zero at the end", "READY=1\x00", 0, Notification{Ready: true}},
		{"zero inside", "READY=1\x00X=1", 0, ErrZeroByte},
		{"zeros", strings.Repeat("\x00", 4096), 1, ErrZeroByte},
		{"newlines", strings.Repeat("\n", 4096), 0, Notification{}},
		{"equals signs", strings.Repeat("=\n", 2048), 0, Notification{}},
		{"not UTF-8", "STATUS=\xff\xfe\nREADY=1", 0, Notification{Ready: true, HasStatus: true}},
		{"longest", "STATUS=" + long, 0, Notification{Status: long, HasStatus: true}},
		{"too long", "STATUS=" + long + "y", 0, ErrTooLong},
		{"too long with files", strings.Repeat("READY=1\n", 16000), maxFiles, ErrTooLong},
		{"files", "READY=1\nFDSTORE=1", 1, Notification{Ready: true}},
		{"most files", "READY=1", maxFiles, Notification{Ready: true}},
		{"barrier without file", "BARRIER=1", 0, ErrBarrier},
		{"barrier with field", "BARRIER=1\nREADY=1", 1, ErrBarrier},
		{"barrier twice", "BARRIER=1\nBARRIER=1", 1, ErrBarrier},
		{"barrier too long", "BARRIER=1" + strings.Repeat("\n", 4096), 1, ErrTooLong},
		{"barrier with many files", "BARRIER=1", maxFiles, Notification{Barrier: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := say(fd, r, c.data, files[:c.files]...); err != nil {
				t.Fatal(err)
			}
			if want, ok := c.want.(Notification); ok {
				n := expect(t, r, want)
				if open := descriptors(t); len(open) != len(quiet) {
					t.Errorf("open while it is acted on: %q", open)
				}
				n.Done()
			} else {
				n, err := next(t, r)
				var dropped *DroppedError
				if n != (Notification{}) || !errors.Is(err, c.want.(error)) || !errors.As(err, &dropped) || dropped.PID != os.Getpid() {
					t.Errorf("%+v, %v", n, err)
				}
			}
			if err := say(fd, r, "READY=1"); err != nil {
				t.Fatal(err)
			}
			expect(t, r, Notification{Ready: true})
		})
	}
}

// The messages of many senders with files, as fast as they can.
func TestFlood(t *testing.T) {
	noLeak(t)
	r := receiver(t)
	f, _ := pipe(t)
	const senders, each = 4, 500
	var sending sync.WaitGroup
	for i := range senders {
		fd := sender(t)
		sending.Go(func() {
			for range each {
				files := []int{f.Fd(), f.Fd(), f.Fd()}[:i]
				if err := say(fd, r, "WATCHDOG=1", files...); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range senders * each {
		expect(t, r, Notification{Watchdog: true})
	}
	sending.Wait()
	if open := descriptors(t); t.Failed() {
		t.Logf("open: %q", open)
	}
}

// A message whose sender the kernel does not name, here as nobody asked for that when
// it was sent.
func TestNoCredentials(t *testing.T) {
	noLeak(t)
	r, err := newReceiver(filepath.Join(t.TempDir(), "notify"))
	if err != nil {
		t.Fatal(err)
	}
	pass := func(on int) {
		t.Helper()
		var serr error
		err := r.raw.Control(func(fd uintptr) { serr = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, on) })
		if err := errors.Join(err, serr); err != nil {
			t.Fatal(err)
		}
	}
	fd := sender(t)
	f, _ := pipe(t)
	pass(0)
	if err := errors.Join(say(fd, r, "READY=1", f.Fd()), say(fd, r, "BARRIER=1", f.Fd())); err != nil {
		t.Fatal(err)
	}
	pass(1)
	if err := say(fd, r, "READY=1"); err != nil {
		t.Fatal(err)
	}
	go r.run()
	for range 2 {
		var dropped *DroppedError
		if n, err := next(t, r); !errors.Is(err, ErrNoCredentials) || !errors.As(err, &dropped) || dropped.PID != 0 || n != (Notification{}) {
			t.Errorf("%+v, %v", n, err)
		}
	}
	expect(t, r, Notification{Ready: true})
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	ended(t, r)
}

func TestBarrier(t *testing.T) {
	noLeak(t)
	r := receiver(t)
	n := service(t, r)
	for range 3 {
		end, other := pipe(t)
		if err := n.SendFiles([]*fdpass.File{other}, "BARRIER=1"); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(n.Send(Ready()), other.Close()); err != nil {
			t.Fatal(err)
		}
		barrier := expect(t, r, Notification{Barrier: true})
		after := make(chan outcome, 1)
		go func() {
			n, err := r.Receive()
			after <- outcome{n, err}
		}()
		if hungUp(t, end, 50*time.Millisecond) {
			t.Error("the barrier ended too early")
		}
		select {
		case o := <-after:
			t.Errorf("received %+v before the barrier had ended", o)
		default:
		}
		barrier.Done()
		if !hungUp(t, end, patience) {
			t.Error("the barrier does not end")
		}
		barrier.Done()
		if o := <-after; o.err != nil || !o.notification.Ready {
			t.Errorf("received %+v", o)
		}
	}
}

// A barrier nobody calls Done for ends with the Receiver, received or not.
func TestBarrierEndsWithClose(t *testing.T) {
	for _, received := range []bool{true, false} {
		noLeak(t)
		r := receiver(t)
		n := service(t, r)
		end, other := pipe(t)
		if err := errors.Join(n.SendFiles([]*fdpass.File{other}, "BARRIER=1"), other.Close()); err != nil {
			t.Fatal(err)
		}
		if received {
			defer expect(t, r, Notification{Barrier: true}).Done()
		}
		if hungUp(t, end, 0) {
			t.Error("the barrier ended too early")
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if !hungUp(t, end, patience) {
			t.Error("the barrier does not end")
		}
	}
}
