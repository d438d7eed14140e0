//go:build linux

package worker

import (
	"errors"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// elsewhere runs f on a thread that prepare has changed, which ends afterwards.
func elsewhere(t *testing.T, prepare, f func() error) {
	t.Helper()
	var prepared, err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good
		if prepared = prepare(); prepared == nil {
			err = f()
		}
	}()
	<-done
	if prepared != nil {
		t.Skip(prepared)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// withoutIPv6 lets socket(2) on this thread fail as where the kernel has no IPv6.
func withoutIPv6() error {
	const number, family = 0, 16 // in struct seccomp_data: nr, args[0]
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: number},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_SOCKET, Jf: 3},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: family},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.AF_INET6, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EAFNOSUPPORT)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	return unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0)
}

// Where there is no IPv6 every address is IPv4's; who asks for :: gets an error.
func TestServerWithoutIPv6(t *testing.T) {
	r := newRig(t, ServerOptions{})
	elsewhere(t, withoutIPv6, func() error {
		if err := r.Listen(t.Context(), "tcp", "[::]:0"); !errors.Is(err, syscall.EAFNOSUPPORT) {
			t.Errorf("::, without IPv6: %v", err)
		}
		return r.Listen(t.Context(), "tcp", ":0")
	})
	if !strings.HasPrefix(r.Addr().String(), "0.0.0.0:") || dial2("127.0.0.1:"+r.port())() != nil {
		t.Errorf("every address, without IPv6: %v", r.Addr())
	}
	r.saw("error listening connection")
}

// That IPv6 is turned off does not keep :: from being bound.
func TestServerIPv6Disabled(t *testing.T) {
	r := newRig(t, ServerOptions{})
	elsewhere(t, func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil { // needs root
			return err
		}
		return os.WriteFile("/proc/sys/net/ipv6/conf/all/disable_ipv6", []byte("1"), 0)
	}, func() error { return r.Listen(t.Context(), "tcp", ":0") })
	if !strings.HasPrefix(r.Addr().String(), "[::]:") {
		t.Errorf("every address, with IPv6 turned off: %v", r.Addr())
	}
}
