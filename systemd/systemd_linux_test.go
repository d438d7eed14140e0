package systemd

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
)

func TestMain(m *testing.M) {
	switch os.Getenv("SYSTEMD_TEST_HELPER") {
	case "":
	case "notify":
		helperNotify()
		return
	default:
		helper()
		return
	}
	startPoller()
	os.Exit(m.Run())
}

// manager is a real socket of the manager's side.
func manager(t *testing.T, name string) *net.UnixConn {
	t.Helper()
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	t.Setenv("NOTIFY_SOCKET", name)
	return c
}

func receive(t *testing.T, c *net.UnixConn) (string, []int) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	buf, oob := make([]byte, 4096), make([]byte, 4096)
	n, oobn, _, _, err := c.ReadMsgUnix(buf, oob)
	if err != nil {
		t.Fatal(err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		t.Fatal(err)
	}
	var fds []int
	for _, m := range messages {
		got, err := unix.ParseUnixRights(&m)
		if err != nil {
			t.Fatal(err)
		}
		fds = append(fds, got...)
	}
	return string(buf[:n]), fds
}

func TestSend(t *testing.T) {
	for _, name := range []string{filepath.Join(t.TempDir(), "n"), fmt.Sprintf("@systemd-test-%d", os.Getpid())} {
		c := manager(t, name)
		n := NewNotifier()
		n.UnsetEnvironment()
		if _, set := os.LookupEnv("NOTIFY_SOCKET"); set || !n.Enabled() || n.Address() != name {
			t.Error("the environment is wrong")
		}
		if err := n.Send(Ready(), Status("2 workers\nREADY=0"), MainPID(7)); err != nil {
			t.Fatal(err)
		}
		if got, _ := receive(t, c); got != "READY=1\nSTATUS=2 workers READY=0\nMAINPID=7" {
			t.Errorf("received %q", got)
		}
		null, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		f := fdpass.NewFile(null)
		if err := n.SendFiles([]*fdpass.File{f, f}, "FDSTORE=1", "FDNAME=a"); err != nil {
			t.Fatal(err)
		}
		got, fds := receive(t, c)
		if got != "FDSTORE=1\nFDNAME=a" || len(fds) != 2 {
			t.Errorf("received %q, %v", got, fds)
		}
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
		if err := f.Close(); err != nil {
			t.Errorf("the file was not borrowed: %v", err)
		}
		if err := n.SendFiles([]*fdpass.File{f}, "FDSTORE=1"); !errors.Is(err, fdpass.ErrClosed) {
			t.Errorf("a closed file: %v", err)
		}
		if err := n.SendFiles(make([]*fdpass.File, 254), "FDSTORE=1"); !errors.Is(err, unix.E2BIG) {
			t.Errorf("too many files: %v", err)
		}
		_ = c.Close()
		_ = os.Remove(name)
		if err := n.Send(Watchdog()); !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("no manager: %v", err)
		}
		if err := n.Close(); err != nil {
			t.Error(err)
		}
		if err := n.Send(Ready()); !errors.Is(err, fdpass.ErrClosed) {
			t.Errorf("closed: %v", err)
		}
	}
}

// A manager that does not read stalls nobody.
func TestSendNeverBlocks(t *testing.T) {
	c := manager(t, filepath.Join(t.TempDir(), "n"))
	n := NewNotifier()
	defer n.Close()
	sent := 0
	for ; sent < 1_000_000; sent++ {
		if err := n.Send(Watchdog()); err != nil {
			if !errors.Is(err, unix.EAGAIN) {
				t.Fatal(err)
			}
			break
		}
	}
	t.Logf("full after %d messages", sent)
	if _, _ = receive(t, c); n.Send(Ready()) != nil {
		t.Error("still full after one was read")
	}
}

func TestNoManager(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	for _, n := range []*Notifier{NewNotifier(), {}} {
		if n.Enabled() || n.Send(Ready()) != nil || n.Close() != nil {
			t.Error("not a no-op")
		}
	}
	for value, want := range map[string]error{"vsock:2:1": unix.EAFNOSUPPORT, "relative": unix.EAFNOSUPPORT, "/": unix.EAFNOSUPPORT,
		"/" + strings.Repeat("x", 107): unix.ENAMETOOLONG} {
		t.Setenv("NOTIFY_SOCKET", value)
		if err := NewNotifier().Send(Ready()); !errors.Is(err, want) {
			t.Errorf("%.20s: %v", value, err)
		}
	}
}

func TestFields(t *testing.T) {
	for got, want := range map[string]string{
		Reloading(1500 * time.Millisecond): "RELOADING=1\nMONOTONIC_USEC=1500000",
		Stopping():                         "STOPPING=1",
		Watchdog():                         "WATCHDOG=1",
		ExtendTimeout(30 * time.Second):    "EXTEND_TIMEOUT_USEC=30000000",
		Status("a\r\n\x00b\xff"):           "STATUS=a   b?",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if a, b := Monotonic(), Monotonic(); a <= 0 || b < a {
		t.Errorf("monotonic: %v, %v", a, b)
	}
}

func TestWatchdogInterval(t *testing.T) {
	me := strconv.Itoa(os.Getpid())
	for _, c := range []struct {
		usec, pid string
		want      time.Duration
	}{{"30000000", me, 30 * time.Second}, {"5", "", 5 * time.Microsecond}, {"5", "1", 0}, {"", "", 0}, {"x", "", 0}, {"0", "", 0},
		{"-1", "", 0}, {"18446744073709551615", "", 0}, {"9223372036854775807", "", 0}} {
		t.Setenv("WATCHDOG_USEC", c.usec)
		t.Setenv("WATCHDOG_PID", c.pid)
		if got, ok := WatchdogInterval(); got != c.want || ok != (c.want > 0) {
			t.Errorf("%+v: %v, %v", c, got, ok)
		}
	}
}

// answer is what the helper found in its own environment.
type answer struct {
	Names   []string
	FDs     []int
	CloExec bool
	Left    []string
	Err     string
	Again   int
}

func helper() {
	if os.Getenv("LISTEN_PID") == "self" {
		_ = os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
	}
	a := answer{CloExec: true}
	sockets, err := Inherited()
	for _, s := range sockets {
		a.Names, a.FDs = append(a.Names, s.Name), append(a.FDs, s.File.Fd())
		flags, ferr := unix.FcntlInt(uintptr(s.File.Fd()), unix.F_GETFD, 0)
		a.CloExec = a.CloExec && ferr == nil && flags&unix.FD_CLOEXEC != 0
	}
	if err != nil {
		a.Err = err.Error()
	}
	for _, v := range os.Environ() {
		if strings.HasPrefix(v, "LISTEN_") {
			a.Left = append(a.Left, v)
		}
	}
	again, _ := Inherited()
	a.Again = len(again)
	_ = json.NewEncoder(os.Stdout).Encode(a)
}

func TestInherited(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	file, err := ln.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, c := range []struct {
		env  []string
		want string // names, or the error
	}{
		{[]string{"LISTEN_PID=self", "LISTEN_FDS=2", "LISTEN_FDNAMES=web:api"}, "[web api]"},
		{[]string{"LISTEN_PID=self", "LISTEN_FDS=2", "LISTEN_FDNAMES=web:"}, "[web unknown]"},
		{[]string{"LISTEN_PID=self", "LISTEN_FDS=2"}, "[unknown unknown]"},
		{[]string{"LISTEN_PID=self", "LISTEN_FDS=0", "LISTEN_FDNAMES="}, "[]"},
		{[]string{"LISTEN_PID=1", "LISTEN_FDS=2"}, "[]"},
		{[]string{"LISTEN_FDS=2"}, "[]"},
		{nil, "[]"},
		{[]string{"LISTEN_PID=self", "LISTEN_FDS=2", "LISTEN_FDNAMES=web"}, "LISTEN_FDNAMES has 1 names for LISTEN_FDS=2: invalid argument"},
		{[]string{"LISTEN_PID=x", "LISTEN_FDS=2"}, `LISTEN_PID="x": invalid argument`},
		{[]string{"LISTEN_PID=self", "LISTEN_FDS=-1"}, `LISTEN_FDS="-1": invalid argument`},
		{[]string{"LISTEN_PID=self", "LISTEN_FDS=900"}, "LISTEN_FDS=900: fd "},
	} {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append([]string{"SYSTEMD_TEST_HELPER=1", "GORACE=atexit_sleep_ms=0"}, c.env...)
		cmd.ExtraFiles = []*os.File{file, file}
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		var a answer
		if err := json.Unmarshal(out, &a); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		got := a.Err
		if got == "" {
			got = fmt.Sprint(a.Names)
		}
		if !strings.HasPrefix(got, c.want) || len(a.Left) != 0 || !a.CloExec || a.Again != 0 {
			t.Errorf("%v: got %+v, want %s", c.env, a, c.want)
		}
	}
}
