package systemd

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
)

// manage reads what a Notifier says, and keeps or drops files.
func manage(t *testing.T, keep bool) *Notifier {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := fdpass.NewConn(fdpass.NewFile(pair[0]))
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		var kept []*fdpass.File
		buf := make([]byte, 4096)
		for {
			n, files, err := conn.Recv(buf, fdpass.MaxFiles)
			if err != nil {
				fdpass.CloseAll(kept)
				return
			}
			if keep && string(buf[:n]) != "BARRIER=1" {
				kept = append(kept, files...)
			} else {
				fdpass.CloseAll(files)
			}
		}
	}()
	n := NewNotifierOn(fdpass.NewFile(pair[1]))
	t.Cleanup(func() { _ = conn.Close(); <-ended; _ = n.Close() })
	return n
}

// TestHasStore: whether files are kept is found out, not believed.
func TestHasStore(t *testing.T) {
	for _, keep := range []bool{true, false} {
		if has, err := manage(t, keep).HasStore(10 * time.Second); err != nil || has != keep {
			t.Errorf("keeps %v: %v, %v", keep, has, err)
		}
	}
	t.Setenv("NOTIFY_SOCKET", "")
	if has, err := NewNotifier().HasStore(time.Second); has || err != nil {
		t.Errorf("without a manager: %v, %v", has, err)
	}
}

// TestHasStoreSilent: a manager that does not read is not waited for longer than said.
func TestHasStoreSilent(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	n := NewNotifierOn(fdpass.NewFile(pair[1]))
	defer n.Close()
	if has, err := n.HasStore(20 * time.Millisecond); has || !errors.Is(err, unix.ETIMEDOUT) {
		t.Errorf("%v, %v", has, err)
	}
}

// TestGone: the end of the manager is told, and so is that of the Notifier.
func TestGone(t *testing.T) {
	for _, manager := range []bool{true, false} {
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		n := NewNotifierOn(fdpass.NewFile(pair[1]))
		told := make(chan error, 1)
		go func() { told <- n.Gone() }()
		want := error(nil)
		if manager {
			_ = unix.Close(pair[0])
		} else {
			defer unix.Close(pair[0])
			for n.gone.Load() == nil {
				<-time.After(time.Millisecond)
			}
			want = fdpass.ErrClosed
			_ = n.Close()
		}
		if err := <-told; err != want {
			t.Errorf("%v, want %v", err, want)
		}
		_ = n.Close()
	}
	if err := new(Notifier).Gone(); !errors.Is(err, unix.ENOTCONN) {
		t.Error(err)
	}
}

func TestStoreNames(t *testing.T) {
	n := manage(t, true)
	for name, good := range map[string]bool{"a": true, "supervisord.link.7": true, "A_b-c.9": true, "": false, "a b": false, "a:b": false, "ä": false, string(make([]byte, 256)): false} {
		if err := n.Store(name); (err == nil) != good {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// TestAdoptReceiver: what came while nobody received is received by the next.
func TestAdoptReceiver(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	first, err := NewReceiver(path)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := first.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var kept *fdpass.File
	if err := raw.Control(func(fd uintptr) {
		n, _ := unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0)
		kept = fdpass.NewFile(n)
	}); err != nil {
		t.Fatal(err)
	}
	other, err := kept.Dup()
	if err != nil {
		t.Fatal(err)
	}
	next, err := AdoptReceiver(path, kept)
	if err != nil {
		t.Fatal(err)
	}
	// As when its process is killed: the path stays. Close would remove it, so it is
	// another file's for a moment.
	hidden := path + ".hidden"
	if err := os.Rename(path, hidden); err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(hidden, path); err != nil {
		t.Fatal(err)
	}
	t.Setenv("NOTIFY_SOCKET", path)
	n := NewNotifier()
	defer n.Close()
	if err := n.Send(Ready()); err != nil {
		t.Fatal(err)
	}
	got, err := next.Receive()
	if err != nil || !got.Ready || got.PID != os.Getpid() {
		t.Errorf("%+v, %v", got, err)
	}
	got.Done()
	if err := next.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the path is left: %v", err)
	}
	if _, err := AdoptReceiver(path+"x", other); !errors.Is(err, unix.EINVAL) {
		t.Errorf("another path: %v", err)
	}
}
