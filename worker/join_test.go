//go:build linux

package worker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
	"github.com/f72e338e/supervisord/internal/link"
	"github.com/f72e338e/supervisord/internal/proto"
)

const helper = "WORKER_TEST_HELPER"

// TestMain runs this binary as a worker when a test starts it so.
func TestMain(m *testing.M) {
	if os.Getenv(helper) == "" {
		os.Exit(m.Run())
	}
	if err := helperMain(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func helperMain() error {
	if os.Getenv(helper) == "serve" {
		return Serve(context.Background(), &http.Server{Handler: http.HandlerFunc(hello)}, "", "")
	}
	if os.Getenv(helper) == "turns" {
		return helperTurns()
	}
	if _, err := Join(context.Background()); err != nil {
		return err
	}
	return nil
}

// spawn starts this binary as a worker on the other end of a link.
func spawn(t *testing.T, what string) (*master, *exec.Cmd) {
	t.Helper()
	a, b, err := fdpass.Pair()
	if err != nil {
		t.Fatal(err)
	}
	f, err := b.Detach()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), helper+"="+what, Environment+"=3")
	cmd.Stderr = os.Stderr
	file := os.NewFile(uintptr(f.Release()), "link")
	cmd.ExtraFiles = []*os.File{file}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = file.Close()
	m := &master{t: t, conn: link.New(a, 0), in: make(chan proto.Envelope, 64)}
	go func() {
		defer close(m.in)
		for {
			e, _, err := m.conn.Recv()
			if err != nil {
				return
			}
			m.in <- e
		}
	}()
	t.Cleanup(func() { _ = m.conn.Close(); _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return m, cmd
}

// The one-liner in a process of its own, from hello to exit.
func TestServeProcess(t *testing.T) {
	m, cmd := spawn(t, "serve")
	e, _ := expect[proto.Hello](m)
	m.send(proto.Envelope{Re: e.ID, Body: welcome(1)})
	f, b := bound(t, "tcp", "127.0.0.1")
	e, l := expect[proto.Listen](m)
	if l.Name != "main" {
		t.Fatalf("listen: %+v", l)
	}
	m.send(proto.Envelope{Re: e.ID, Body: proto.Grant{Handle: 1, Network: "tcp", Address: b.Address, Name: "main"}}, f)
	expect[proto.Ready](m)
	c := dial(t, b.Address)
	c.ask(t)
	_ = c.Close()
	m.send(proto.Envelope{Body: proto.Drain{DeadlineMS: 60_000, Reason: "stop"}})
	until(m, anyOf[proto.Draining])
	until(m, anyOf[proto.Close])
	for open := true; open; { // the worker ends by itself
		_, open = m.next()
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
}

func TestJoinOnce(t *testing.T) {
	a, b, err := fdpass.Pair()
	if err != nil {
		t.Fatal(err)
	}
	m := &master{t: t, conn: link.New(a, 0)}
	f, err := b.Detach()
	if err != nil {
		t.Fatal(err)
	}
	fd := f.Release()
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil { // as inherited
		t.Fatal(err)
	}
	t.Setenv(Environment, fmt.Sprint(fd))
	m.send(proto.Envelope{Body: welcome(1)})
	w, err := Join(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = m.conn.Close()
		_ = w.Close()
		process.worker = nil
	}()
	if _, ok := os.LookupEnv(Environment); ok {
		t.Errorf("%s is still set", Environment)
	}
	if again, err := Join(t.Context()); err != nil || again != w {
		t.Errorf("second Join: %p %v, want %p", again, err, w)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil {
		flags, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("fd %d is inheritable", fd)
		}
	}
}

// A variable without its descriptor is an error, and harms no other file.
func TestJoinWrongDescriptor(t *testing.T) {
	file, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for value, want := range map[string]error{"x": nil, "-1": nil, "9999": syscall.EBADF, fmt.Sprint(file.Fd()): syscall.ENOTSOCK} {
		t.Setenv(Environment, value)
		if _, err := Join(t.Context()); err == nil || want != nil && !errors.Is(err, want) {
			t.Errorf("%s=%s: %v, want %v", Environment, value, err, want)
		}
	}
	if _, err := file.WriteString("still open"); err != nil {
		t.Error(err)
	}
}

func TestStandAlone(t *testing.T) {
	w := alone(t)
	if w.Supervised() || w.Ready() != nil || w.Status("x") != nil {
		t.Error("a stand-alone worker must accept what a supervised one does")
	}
	if _, err := w.ListenName(t.Context(), "web"); !errors.Is(err, ErrStandAlone) {
		t.Errorf("ListenName: %v", err)
	}
	l, err := w.Listen(t.Context(), "tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if ip := l.Addr().(*net.TCPAddr).IP; ip.To4() == nil {
		t.Errorf("localhost is %v, want IPv4 first", ip)
	}
	if _, err := w.Listen(t.Context(), "tcp", l.Addr().String()); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("second listen: %v", err)
	}
	if _, err := w.Listen(t.Context(), "udp", "127.0.0.1:0"); err == nil {
		t.Error("Listen took a datagram network")
	}
	pc, err := w.ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = pc.Close()
	c := dial(t, l.Addr().String())
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if n, err := w.Connections(t.Context()); err != nil || n.Total != 1 {
		t.Errorf("connections: %+v %v", n, err)
	}
	_ = s.Close()
	_ = c.Close()
	path := filepath.Join(t.TempDir(), "s")
	u, err := w.Listen(t.Context(), "unix", path, Mode(0o600))
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("path: %v %v", st, err)
	}
	_ = u.Close()
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("path after Close: %v", err)
	}
}
