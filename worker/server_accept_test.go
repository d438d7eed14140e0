//go:build linux

package worker

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
)

// fillDescriptors connects to addr when no descriptor is left for the server's
// end, and returns what undoes it.
func fillDescriptors(t *testing.T, addr string) (release func()) {
	t.Helper()
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	a := netip.MustParseAddrPort(addr)
	low := old
	low.Cur = 1 // no new descriptor can be had, the old ones work
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	release = sync.OnceFunc(func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &old); err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(func() { release(); _ = syscall.Close(fd) })
	if err := syscall.Connect(fd, &syscall.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}); err != nil {
		t.Fatal(err)
	}
	return release
}

// An error of accept(2) is told, and the server goes on.
func TestServerAcceptError(t *testing.T) {
	told := make(chan error, 64)
	r := newRig(t, ServerOptions{OnError: func(err error) { told <- err }})
	r.listen("127.0.0.1:0")
	release := fillDescriptors(t, r.Addr().String())
	if err := <-told; !errors.Is(err, syscall.EMFILE) {
		t.Errorf("accept: %v", err)
	}
	release()
	r.next()
	if !r.IsListening() {
		t.Error("an error of accept ended the listening")
	}
}

// A listener that was taken and that somebody closes all the same.
func TestServerListenerClosedByOthers(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, ServerOptions{})
	if err := r.ListenOn(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	r.connect()
	_ = l.Close()
	eventually(t, "the server does not listen", func() bool { return !r.IsListening() })
}
