package systemd

import (
	"errors"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// lingering returns a socket whose last close(2) blocks until release is called.
func lingering(t *testing.T) (fd int, release func()) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	addr := &unix.SockaddrInet4{Port: ln.Addr().(*net.TCPAddr).Port, Addr: [4]byte{127, 0, 0, 1}}
	err = errors.Join(unix.Connect(fd, addr), unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: 3600}))
	if err != nil {
		t.Fatal(err)
	}
	peer, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	release = sync.OnceFunc(func() {
		_ = peer.(*net.TCPConn).SetLinger(0)
		_ = peer.Close() // resets
	})
	t.Cleanup(release)
	for buf := make([]byte, 1<<16); ; {
		if _, err := unix.SendmsgN(fd, buf, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL); err != nil {
			return fd, release // neither side takes more
		}
	}
}

// A file that does not let itself be closed holds up what comes after it on the same
// socket. The caller goes on: it has the notification, and Done and Close come back.
func TestLinger(t *testing.T) {
	for _, data := range []string{"READY=1", "BARRIER=1"} {
		t.Run(data, func(t *testing.T) {
			noLeak(t)
			r := receiver(t)
			from := sender(t)
			fd, release := lingering(t)
			if err := say(from, r, data, fd); err != nil {
				t.Fatal(err)
			}
			_ = unix.Close(fd) // not the last one
			if err := say(from, r, "STOPPING=1"); err != nil {
				t.Fatal(err)
			}
			expect(t, r, Notification{Ready: data == "READY=1", Barrier: data == "BARRIER=1"}).Done()
			waiting := make(chan error, 1)
			go func() {
				_, err := r.Receive()
				waiting <- err
			}()
			select {
			case err := <-waiting:
				t.Fatalf("the next was received (%v): the file did not linger", err)
			case <-time.After(100 * time.Millisecond):
			}
			if err := r.Close(); err != nil {
				t.Error(err)
			}
			if err := <-waiting; !errors.Is(err, os.ErrClosed) {
				t.Errorf("receive: %v", err)
			}
			select {
			case <-r.ended:
				t.Error("the file did not linger")
			default:
			}
			release()
			ended(t, r)
		})
	}
}

// The same for one that is still in the queue when the Receiver is closed. Many times:
// for a while, Close and the goroutine could both be the one to close the socket.
func TestLingerInQueue(t *testing.T) {
	noLeak(t)
	for range 50 {
		r := receiver(t)
		from := sender(t)
		fd, release := lingering(t)
		if err := say(from, r, "READY=1", fd); err != nil {
			t.Fatal(err)
		}
		_ = unix.Close(fd)
		closed := make(chan error, 1)
		go func() { closed <- r.Close() }()
		select {
		case err := <-closed:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(patience):
			t.Fatal("Close waits for the file")
		}
		if _, err := r.Receive(); !errors.Is(err, os.ErrClosed) {
			t.Errorf("receive: %v", err)
		}
		release()
		ended(t, r)
	}
}
