package systemd

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestReceive(t *testing.T) {
	noLeak(t)
	r := receiver(t)
	n := service(t, r)
	for _, c := range []struct {
		fields []string
		want   Notification
	}{
		{[]string{Ready(), Status("2 workers"), MainPID(7)}, Notification{Ready: true, Status: "2 workers", HasStatus: true, MainPID: 7}},
		{[]string{Reloading(7 * time.Second)}, Notification{Reloading: true, Monotonic: 7 * time.Second}},
		{[]string{Watchdog(), ExtendTimeout(time.Minute)}, Notification{Watchdog: true, ExtendTimeout: time.Minute}},
		{[]string{Stopping(), Status("")}, Notification{Stopping: true, HasStatus: true}},
	} {
		if err := n.Send(c.fields...); err != nil {
			t.Fatal(err)
		}
		expect(t, r, c.want).Done()
	}
	var st unix.Stat_t
	if err := unix.Lstat(r.Path(), &st); err != nil || st.Mode != unix.S_IFSOCK|0o666 {
		t.Errorf("mode %o, %v", st.Mode, err)
	}
}

func TestEnvironment(t *testing.T) {
	if got := NotifyEnvironment("/run/a b"); got != "NOTIFY_SOCKET=/run/a b" {
		t.Error(got)
	}
	for d, want := range map[time.Duration]time.Duration{time.Minute: time.Minute, 1: time.Microsecond, 0: time.Microsecond, -time.Hour: time.Microsecond} {
		name, value, _ := strings.Cut(WatchdogEnvironment(d), "=")
		t.Setenv(name, value)
		t.Setenv("WATCHDOG_PID", "")
		if got, ok := WatchdogInterval(); got != want || !ok {
			t.Errorf("%v: %v, %v", d, got, ok)
		}
	}
}

func TestReceiverPath(t *testing.T) {
	noLeak(t)
	dir := t.TempDir()
	file, link := filepath.Join(dir, "file"), filepath.Join(dir, "link")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("nowhere", link); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]error{
		"":                             unix.EINVAL,
		"relative":                     unix.EINVAL,
		"@abstract":                    unix.EINVAL,
		dir + "/a\x00b":                unix.EINVAL,
		"/" + strings.Repeat("x", 107): unix.ENAMETOOLONG,
		file:                           unix.EADDRINUSE,
		link:                           unix.EADDRINUSE,
		dir:                            unix.EADDRINUSE,
		filepath.Join(dir, "no", "n"):  unix.ENOENT,
	} {
		if r, err := NewReceiver(path); r != nil || !errors.Is(err, want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%.40q: %v, want %v", path, err, want)
		}
	}
	_, err := NewReceiver("/" + strings.Repeat("x", 107))
	if err == nil || !strings.Contains(err.Error(), "108 bytes; the path of a Unix socket has at most 107") {
		t.Errorf("too long: %v", err)
	}
	if pad := 107 - len(dir) - 1; pad > 0 {
		r, err := NewReceiver(dir + "/" + strings.Repeat("x", pad))
		if err != nil {
			t.Fatalf("107 bytes: %v", err)
		}
		_ = r.Close()
		ended(t, r)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 2 {
		t.Errorf("left in the directory: %v, %v", left, err)
	}
}

// A constructor that fails half way leaves no path.
func TestReceiverWithoutDescriptors(t *testing.T) {
	noLeak(t)
	path := filepath.Join(t.TempDir(), "notify")
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	for free := range 2 { // none, and one: the socket, without a second for the mode
		fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		_ = unix.Close(fd) // the lowest one that is free
		low := limit
		low.Cur = uint64(fd + free)
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &low); err != nil {
			t.Fatal(err)
		}
		_, err = NewReceiver(path)
		if rerr := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); rerr != nil {
			t.Fatal(rerr)
		}
		if !errors.Is(err, unix.EMFILE) {
			t.Errorf("%d free: %v", free, err)
		}
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%d free: the path is there: %v", free, err)
		}
	}
}

// What a sender puts in place of the path gets no other mode, and is not removed.
func TestReplacedPath(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	link, hard, other := filepath.Join(dir, "link"), filepath.Join(dir, "hard"), filepath.Join(dir, "other")
	ln, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: other, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if err := errors.Join(os.Chmod(other, 0o600), os.Symlink(secret, link), os.Link(other, hard)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{secret, link, hard} {
		if err := (&Receiver{path: path}).open(); !errors.Is(err, unix.EACCES) {
			t.Errorf("%s: %v", path, err)
		}
	}
	for _, path := range []string{secret, other} {
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", path, st.Mode(), err)
		}
	}
	r := receiver(t)
	if err := os.Remove(r.Path()); err != nil {
		t.Fatal(err)
	}
	// Bound before the old one's inode is free, so it has another.
	successor, err := NewReceiver(r.Path())
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	if _, err := os.Lstat(successor.Path()); err != nil {
		t.Errorf("the path of the successor: %v", err)
	}
	if err := successor.Close(); err != nil {
		t.Error(err)
	}
	ended(t, successor)
}

func TestClose(t *testing.T) {
	noLeak(t)
	r := receiver(t)
	n := service(t, r)
	var waiting sync.WaitGroup
	for range 3 {
		waiting.Go(func() {
			if _, err := r.Receive(); !errors.Is(err, os.ErrClosed) {
				t.Errorf("receive: %v", err)
			}
		})
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	waiting.Wait()
	ended(t, r)
	if err := r.Close(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("again: %v", err)
	}
	if _, err := r.Receive(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("receive: %v", err)
	}
	if _, err := os.Lstat(r.Path()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the path is there: %v", err)
	}
	if err := n.Send(Ready()); !errors.Is(err, unix.ENOENT) {
		t.Errorf("send: %v", err)
	}
}

// helperNotify is what a child of the test does: it says READY=1 and its user.
func helperNotify() {
	if err := NewNotifier().Send(Ready(), Status(fmt.Sprint(os.Getpid(), os.Getuid(), os.Getgid()))); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// The credentials are those of a child, of another user where the test may start one.
func TestCredentialsOfChild(t *testing.T) {
	noLeak(t)
	r := receiver(t)
	users := []int{os.Getuid()}
	if os.Getuid() == 0 {
		users = append(users, 65533)
		// TempDir is root's alone; what is to send may enter.
		for dir := filepath.Dir(r.Path()); dir != os.TempDir() && len(dir) > 1; dir = filepath.Dir(dir) {
			_ = os.Chmod(dir, 0o711)
		}
	}
	for _, uid := range users {
		// Not os.Args[0], which lies where only its owner may enter.
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = []string{"SYSTEMD_TEST_HELPER=notify", "GORACE=atexit_sleep_ms=0", NotifyEnvironment(r.Path())}
		cmd.Stderr = os.Stderr
		if uid != os.Getuid() {
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
		}
		if err := cmd.Run(); err != nil {
			t.Fatalf("user %d: %v", uid, err)
		}
		n, err := next(t, r)
		gid := os.Getgid()
		if uid != os.Getuid() {
			gid = uid
		}
		want := fmt.Sprint(cmd.Process.Pid, uid, gid)
		if err != nil || !n.Ready || n.Status != want || fmt.Sprint(n.PID, n.UID, n.GID) != want {
			t.Errorf("received %+v, %v, want %s", n, err, want)
		}
	}
}

// The real thing, which waits at a barrier before it ends (sd_notify_barrier(3)).
func TestSystemdNotify(t *testing.T) {
	path, err := exec.LookPath("systemd-notify")
	if err != nil {
		t.Skip("needs systemd-notify(1), of systemd 246 or later")
	}
	noLeak(t)
	r := receiver(t)
	cmd := exec.Command(path, "--ready", "--status=up")
	cmd.Env = []string{NotifyEnvironment(r.Path())}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	over := make(chan error, 1)
	go func() { over <- cmd.Wait() }()
	n, err := next(t, r)
	if err != nil || !n.Ready || n.Status != "up" || n.UID != os.Getuid() {
		t.Fatalf("received %+v, %v", n, err)
	}
	if n, err = next(t, r); err != nil || !n.Barrier {
		t.Fatalf("received %+v, %v", n, err)
	}
	select {
	case err := <-over:
		t.Errorf("it did not wait: %v", err)
	default:
	}
	n.Done()
	if err := <-over; err != nil {
		t.Errorf("systemd-notify: %v", err)
	}
}
