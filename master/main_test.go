package master

import (
	"io"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/f72e338e/supervisord/config"
	"github.com/f72e338e/supervisord/internal/proc"
)

func TestMain(m *testing.M) {
	proc.Stage()
	goleak.VerifyTestMain(m)
}

// newMaster makes a master from a configuration, with its control socket in a
// directory of its own.
func newMaster(t *testing.T, text string) *Master {
	t.Helper()
	dir := t.TempDir()
	cfg, err := config.Parse("test.toml", []byte(text), dir)
	if err != nil {
		t.Fatal(err)
	}
	m, err := New(Options{Config: cfg, Socket: filepath.Join(dir, "control.sock"), Version: "test", Output: io.Discard, Log: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// abandon releases what New opened, for a test that does not Run.
func (m *Master) abandon() {
	close(m.done)
	m.control.close()
	m.output.close()
	m.logged.close()
	m.launches.mu.Lock()
	defer m.launches.mu.Unlock()
	for _, r := range m.launches.byID {
		r.close()
	}
	_ = m.notify.Close()
}

// openFiles counts the descriptors of this process, those of the runtime's poller
// among them whether or not anything was polled before.
func openFiles(t *testing.T) int {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	_, _ = r.Close(), w.Close()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
