//go:build linux

package worker

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// option reads a socket option of the server's end of a connection.
func (c *Socket) option(t *testing.T, level, which int) (value int) {
	t.Helper()
	descriptor(t, c, func(fd uintptr) {
		var err error
		if value, err = unix.GetsockoptInt(int(fd), level, which); err != nil {
			t.Fatal(err)
		}
	})
	return value
}

func TestServerNoDelay(t *testing.T) {
	for setting, want := range map[Setting]int{Default: 1, On: 1, Off: 0} {
		r := newRig(t, ServerOptions{NoDelay: setting})
		r.listen("127.0.0.1:0")
		_, s := r.connect()
		if got := s.option(t, unix.IPPROTO_TCP, unix.TCP_NODELAY); got != want {
			t.Errorf("%v: TCP_NODELAY %d", setting, got)
		}
	}
}

func TestServerKeepAlive(t *testing.T) {
	for _, c := range []struct {
		setting                Setting
		delay                  time.Duration
		on, idle, every, count int
	}{
		{Default, 0, 1, 15, 15, 9},
		{Off, time.Minute, 0, 15, 15, 9},
		{On, 0, 1, 15, 15, 9},
		{On, 999 * time.Millisecond, 1, 15, 15, 9},
		{On, 7900 * time.Millisecond, 1, 7, 1, 10},
		{On, -time.Second, 1, 15, 15, 9},
	} {
		r := newRig(t, ServerOptions{KeepAlive: c.setting, KeepAliveInitialDelay: c.delay})
		r.listen("127.0.0.1:0")
		_, s := r.connect()
		got := [4]int{s.option(t, unix.SOL_SOCKET, unix.SO_KEEPALIVE), s.option(t, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE),
			s.option(t, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL), s.option(t, unix.IPPROTO_TCP, unix.TCP_KEEPCNT)}
		if got != [4]int{c.on, c.idle, c.every, c.count} {
			t.Errorf("%v %v: SO_KEEPALIVE, KEEPIDLE, KEEPINTVL, KEEPCNT are %v", c.setting, c.delay, got)
		}
	}
}

// By default the end is answered with the end.
func TestServerHalfOpenNot(t *testing.T) {
	r := newRig(t, ServerOptions{})
	r.listen("127.0.0.1:0")
	c, s := r.connect()
	_, _ = io.WriteString(c, "last words")
	_ = c.CloseWrite()
	if b, err := io.ReadAll(s); err != nil || string(b) != "last words" {
		t.Errorf("read: %q %v", b, err)
	}
	if err := atEnd(t, c); err != io.EOF {
		t.Errorf("the client sees %v", err)
	}
	if _, err := s.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("write after the end: %v", err)
	}
	if _, err := s.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("another read: %v", err)
	}
	if r.Connections() != 0 || s.Close() != nil {
		t.Errorf("%d connections", r.Connections())
	}
}

// What is being written when the end comes is written first.
func TestServerHalfOpenNotFinishesWrite(t *testing.T) {
	r := newRig(t, ServerOptions{})
	r.listen("127.0.0.1:0")
	c, s := r.connect()
	big := make([]byte, 16<<20) // more than the kernel buffers
	_, _ = rand.Read(big)
	wrote := make(chan error, 1)
	go func() {
		_, err := s.Write(big)
		wrote <- err
	}()
	eventually(t, "a write under way", func() bool { return s.writing.Load() == 1 })
	_ = c.CloseWrite()
	if _, err := s.Read(make([]byte, 1)); err != io.EOF {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(c); err != nil || !bytes.Equal(b, big) {
		t.Errorf("the client got %d bytes, %v", len(b), err)
	}
	if err := <-wrote; err != nil {
		t.Error(err)
	}
}

func TestServerHalfOpen(t *testing.T) {
	r := newRig(t, ServerOptions{AllowHalfOpen: true})
	r.listen("127.0.0.1:0")
	c, s := r.connect()
	_ = c.CloseWrite()
	if _, err := s.Read(make([]byte, 1)); err != io.EOF {
		t.Fatal(err)
	}
	if _, err := io.WriteString(s, "still here"); err != nil || r.Connections() != 1 {
		t.Errorf("write after the peer's end: %v, %d connections", err, r.Connections())
	}
	_ = s.CloseWrite()
	if b, err := io.ReadAll(c); err != nil || string(b) != "still here" {
		t.Errorf("the client got %q %v", b, err)
	}
}

// unread is how many bytes the kernel holds for the server's end.
func unread(t *testing.T, s *Socket) (n int) {
	descriptor(t, s, func(fd uintptr) {
		var err error
		if n, err = unix.IoctlGetInt(int(fd), unix.TIOCINQ); err != nil {
			t.Fatal(err)
		}
	})
	return n
}

func TestServerReadBufferSize(t *testing.T) {
	const sent = 10_000
	for size, left := range map[int]int{0: sent - 1, -1: sent - 1, 4096: sent - 4096} {
		r := newRig(t, ServerOptions{ReadBufferSize: size})
		r.listen("127.0.0.1:0")
		c, s := r.connect()
		want := make([]byte, sent)
		_, _ = rand.Read(want)
		_, _ = c.Write(want)
		eventually(t, "all bytes", func() bool { return unread(t, s) == sent })
		first := make([]byte, 1)
		if _, err := s.Read(first); err != nil {
			t.Fatal(err)
		}
		if got := unread(t, s); got != left {
			t.Errorf("size %d: %d bytes are left in the kernel, want %d", size, got, left)
		}
		_ = c.CloseWrite()
		var rest bytes.Buffer
		if _, err := io.Copy(&rest, s); err != nil || !bytes.Equal(append(first, rest.Bytes()...), want) {
			t.Errorf("size %d: %d bytes, %v", size, rest.Len(), err)
		}
	}
}

func TestServerPauseOnConnect(t *testing.T) {
	r := newRig(t, ServerOptions{PauseOnConnect: true})
	r.listen("127.0.0.1:0")
	c, s := r.connect()
	_, _ = io.WriteString(c, "early")
	got := make(chan string, 1)
	go func() {
		b := make([]byte, 16)
		n, err := s.Read(b)
		got <- string(b[:n]) + errText(err)
	}()
	eventually(t, "data in the kernel", func() bool { return unread(t, s) == len("early") })
	_ = s.SetReadDeadline(time.Now().Add(time.Hour)) // wakes the reader, which must not read
	if !s.IsPaused() || len(got) > 0 || unread(t, s) != len("early") {
		t.Errorf("paused %v, unread %d", s.IsPaused(), unread(t, s))
	}
	_, _ = io.WriteString(s, "a paused one may write")
	s.Resume()
	if g := <-got; g != "early" {
		t.Errorf("after Resume: %q", g)
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// Resume may come at the very moment at which a Read begins to wait: it once
// slept on.
func TestSocketResumeRace(t *testing.T) {
	for range 20_000 {
		var g gate
		g.shut.Store(true)
		passed := make(chan error, 1)
		go func() { passed <- g.pass() }()
		g.mu.Lock()
		g.shut.Store(false)
		g.tell()
		g.mu.Unlock()
		select {
		case err := <-passed:
			if err != nil {
				t.Fatal(err)
			}
		case <-time.After(patience):
			t.Fatal("a Read waits at an open gate")
		}
	}
}

// Pause holds back a read that waits already; deadlines and Close go on working.
func TestSocketPause(t *testing.T) {
	for what, size := range map[string]int{"plain": 0, "buffered": 100} {
		r := newRig(t, ServerOptions{ReadBufferSize: size})
		r.listen("127.0.0.1:0")
		c, s := r.connect()
		var copied bytes.Buffer
		ended := make(chan error, 1)
		go func() {
			_, err := io.Copy(&copied, s)
			ended <- err
		}()
		for range 50 {
			s.Pause()
			_, _ = io.WriteString(c, "x")
			s.Resume()
		}
		s.Pause()
		_ = c.CloseWrite()
		s.Resume()
		if err := <-ended; err != nil || copied.Len() != 50 {
			t.Errorf("%s: copied %d bytes, %v", what, copied.Len(), err)
		}
	}
	r := newRig(t, ServerOptions{})
	r.listen("127.0.0.1:0")
	_, s := r.connect()
	s.Pause()
	_ = s.SetDeadline(time.Unix(1, 0))
	var timeout net.Error
	if _, err := s.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("read at the deadline: %v", err)
	}
	_ = s.SetDeadline(time.Time{})
	ended := make(chan error, 1)
	go func() {
		_, err := s.Read(make([]byte, 1))
		ended <- err
	}()
	_ = s.Close()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("read of a closed one: %v", err)
	}
	_, s = r.connect()
	_ = s.SetReadDeadline(time.Unix(1, 0)) // not paused: the connection's own
	if _, err := s.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read at the deadline: %v", err)
	}
}

func TestServerHandler(t *testing.T) {
	noLeak(t)
	srv := NewServer(ServerOptions{Worker: alone(t)}, func(c *Socket) { _, _ = io.Copy(c, c) })
	if err := srv.Listen(t.Context(), "tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	c := dial(t, srv.Addr().String())
	_, _ = io.WriteString(c, "echo")
	_ = c.Conn.(*net.TCPConn).CloseWrite()
	if b, err := io.ReadAll(c); err != nil || string(b) != "echo" {
		t.Errorf("echo: %q %v", b, err)
	}
	if err := srv.Close(); err != nil {
		t.Error(err)
	}
	nobody := NewServer(ServerOptions{Worker: alone(t)}, nil)
	if err := nobody.Listen(t.Context(), "tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	if err := atEnd(t, dial(t, nobody.Addr().String())); err != io.EOF {
		t.Errorf("without a handler: %v", err)
	}
	if err := nobody.Close(); err != nil {
		t.Error(err)
	}
}
