package main

import (
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/f72e338e/supervisord/internal/testkit"
	"github.com/f72e338e/supervisord/systemd"
)

// TestNotify: what systemd hears of a life: READY, pings, a reload that says when
// it began, one that is refused, and STOPPING.
func TestNotify(t *testing.T) {
	w := web{address: testkit.Address(t), workers: 1}
	d := testkit.New(t)
	d.Configure(w.toml(t))
	path := d.Dir + "/notify.sock"
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	var heard []string
	hear := func(want string) string {
		t.Helper()
		buf := make([]byte, 4096)
		_ = conn.SetReadDeadline(time.Now().Add(testkit.Patience))
		for {
			n, err := conn.Read(buf)
			if err != nil {
				t.Fatalf("never heard %q, but %q: %v", want, heard, err)
			}
			heard = append(heard, string(buf[:n]))
			if strings.Contains(string(buf[:n]), want) {
				return string(buf[:n])
			}
		}
	}
	d.Env = append(d.Env, "NOTIFY_SOCKET="+path, "WATCHDOG_USEC=400000")
	d.Start()
	if got := hear("READY=1"); !strings.Contains(got, "STATUS=") {
		t.Errorf("ready without a status: %q", got)
	}
	hear("WATCHDOG=1")
	begun := monotonicUSec(t)
	w.pool = `env = { A = "1" }`
	d.Configure(w.toml(t))
	d.Signal(syscall.SIGHUP)
	reload := hear("RELOADING=1")
	var at int64
	_, rest, _ := strings.Cut(reload, "MONOTONIC_USEC=")
	if _, err := fmt.Sscan(rest, &at); err != nil || at < begun || at > monotonicUSec(t) {
		t.Errorf("reloading at %d, signalled at %d: %q", at, begun, reload)
	}
	hear("roll-out of web")
	hear("READY=1")
	d.Configure(bad)
	d.Signal(syscall.SIGHUP)
	hear("RELOADING=1")
	hear("READY=1") // it was refused: what served still does
	for _, pid := range testkit.PIDs(d.Status(), "web") {
		env, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if strings.Contains(string(env), "NOTIFY_SOCKET") || strings.Contains(string(env), "WATCHDOG") {
			t.Error("a worker has the master's notify socket")
		}
	}
	d.Signal(syscall.SIGTERM)
	hear("STOPPING=1")
	d.Ended(0)
}

func monotonicUSec(t *testing.T) int64 {
	t.Helper()
	return int64(systemd.Monotonic() / time.Microsecond)
}
