package master

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/f72e338e/supervisord/config"
	"github.com/f72e338e/supervisord/internal/api"
)

func TestTwoMasters(t *testing.T) {
	m := newMaster(t, "")
	defer m.abandon()
	_, err := openControl(m, m.control.path, config.Control{})
	if err == nil || !strings.Contains(err.Error(), "another supervisord (pid") {
		t.Errorf("a second master at the same control socket: %v", err)
	}
}

func TestControlReplacesWhatADeadMasterLeft(t *testing.T) {
	m := newMaster(t, "")
	defer m.abandon()
	path := filepath.Join(t.TempDir(), "c.sock")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	_ = ln.Close()
	c, err := openControl(m, path, config.Control{Mode: 0o640})
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	fi, err := os.Stat(path)
	if err != nil || fi.Mode().Perm() != 0o640 {
		t.Errorf("mode is %v, %v", fi.Mode(), err)
	}
}

func TestControlRefusesUnsafePlaces(t *testing.T) {
	m := newMaster(t, "")
	defer m.abandon()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := openControl(m, filepath.Join(dir, "c.sock"), config.Control{}); err == nil || !strings.Contains(err.Error(), "others may write") {
		t.Errorf("in a directory that others may write to: %v", err)
	}
	dir = t.TempDir()
	file := filepath.Join(dir, "c.sock")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openControl(m, file, config.Control{}); err == nil {
		t.Error("took the place of a file that is no socket")
	}
	if data, _ := os.ReadFile(file); string(data) != "precious" {
		t.Error("the file is gone")
	}
	if err := os.Symlink("/etc/passwd", file+"2.lock"); err != nil {
		t.Fatal(err)
	}
	if _, err := openControl(m, file+"2", config.Control{}); err == nil {
		t.Error("followed a link in place of the lock file")
	}
}

func TestRights(t *testing.T) {
	c := &control{group: 20}
	me := uint32(os.Geteuid())
	for _, tt := range []struct {
		name         string
		p            peer
		read, change bool
	}{
		{"root", peer{uid: 0, ok: true}, true, true},
		{"the daemon's user", peer{uid: me, ok: true}, true, true},
		{"a member of the group", peer{uid: 4000, gid: 20, ok: true}, true, false},
		{"one by a supplementary group", peer{uid: 4000, gid: 1, groups: []uint32{7, 20}, ok: true}, true, false},
		{"a stranger", peer{uid: 4000, gid: 4000, ok: true}, false, false},
		{"nobody knows who", peer{}, false, false},
	} {
		if got := c.mayRead(tt.p); got != tt.read {
			t.Errorf("%s may read: %v", tt.name, got)
		}
		if got := c.mayChange(tt.p); got != tt.change {
			t.Errorf("%s may change: %v", tt.name, got)
		}
	}
	c.group = -1
	if c.mayRead(peer{uid: 4000, gid: 20, ok: true}) {
		t.Error("with no group configured, a stranger may read")
	}
}

// TestPeerAndRoutes asks over a real socket: the peer is known, paths and methods
// that do not exist are refused, a broken body is an error of the caller.
func TestPeerAndRoutes(t *testing.T) {
	m := newMaster(t, "")
	m.control.serve()
	ended := make(chan int)
	go func() { ended <- m.loop(context.Background()) }()
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) {
		return net.Dial("unix", m.control.path)
	}}}
	for _, tt := range []struct {
		method, path, body string
		want               int
	}{
		{"GET", api.PathStatus, "", 200}, {"POST", api.PathStatus, "", 405}, {"GET", "/v1/nothing", "", 404}, {"GET", api.PathReload, "", 405},
		{"POST", api.PathScale, "{", 400}, {"POST", api.PathScale, `{"nonsense":1}`, 400}, {"GET", api.PathConnections + "?timeout_ms=x", "", 400},
		{"GET", api.PathConnections, "", 200}, {"GET", api.PathEvents, "", 200}, {"POST", api.PathScale, `{"pool":"none","workers":1}`, 200},
	} {
		req, _ := http.NewRequest(tt.method, "http://x"+tt.path, strings.NewReader(tt.body))
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != tt.want {
			t.Errorf("%s %s: %s, want %d", tt.method, tt.path, resp.Status, tt.want)
		}
	}
	client, err := api.Dial(t.Context(), []string{filepath.Join(t.TempDir(), "none"), m.control.path})
	if err != nil {
		t.Fatal(err)
	}
	if res, err := client.Command(t.Context(), api.PathStop, api.StopRequest{}, func(api.Line) {}); err != nil || res.Error != "" {
		t.Errorf("stop: %+v, %v", res, err)
	}
	if code := <-ended; code != 0 {
		t.Errorf("the loop ended with %d", code)
	}
	client.Close()
	m.abandon()
	if _, err := api.Dial(t.Context(), []string{m.control.path}); !errors.Is(err, api.ErrNoMaster) {
		t.Errorf("dial after the end: %v", err)
	}
}

// TestControlIsMadeAgain: a control socket that somebody removed is there again
// after a reload, and until then a client is told whom to signal.
func TestControlIsMadeAgain(t *testing.T) {
	m := newMaster(t, "")
	m.control.serve()
	ended := make(chan int)
	go func() { ended <- m.loop(context.Background()) }()
	if err := os.Remove(m.control.path); err != nil {
		t.Fatal(err)
	}
	if _, err := api.Dial(t.Context(), []string{m.control.path}); err == nil || !strings.Contains(err.Error(), "was removed (kill -HUP") {
		t.Errorf("dial of a removed socket: %v", err)
	}
	m.control.heal()
	m.control.heal() // nothing to do
	client, err := api.Dial(t.Context(), []string{m.control.path})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Status(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := client.Command(t.Context(), api.PathStop, api.StopRequest{}, func(api.Line) {}); err != nil {
		t.Error(err)
	}
	<-ended
	client.Close()
	m.abandon()
	if _, err := os.Lstat(m.control.path); err == nil {
		t.Error("the socket is still there after the end")
	}
}
