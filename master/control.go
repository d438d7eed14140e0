package master

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/config"
	"github.com/f72e338e/supervisord/internal/api"
)

// control serves the control API on a Unix socket.
type control struct {
	m     *Master
	path  string
	ln    *net.UnixListener
	lock  *os.File // held while this master lives: two of them cannot share a socket
	srv   *http.Server
	group int // whose members may read; -1 = none
	cfg   config.Control
	ended sync.WaitGroup // goroutines in Serve

	mu     sync.Mutex // heal meets close
	closed bool
}

// openControl makes the socket, its directory included, as nobody else's: a
// directory that others may write to, or a link in place of one, is refused.
func openControl(m *Master, path string, cfg config.Control) (*control, error) {
	if path == "" {
		path = api.SocketCandidates()[0]
	}
	dir := filepath.Dir(path)
	if err := safeDirectory(dir); err != nil {
		return nil, fmt.Errorf("cannot use the control socket %s: %w", path, err)
	}
	c := &control{m: m, path: path, group: -1, cfg: cfg}
	if err := c.takeLock(); err != nil {
		return nil, err
	}
	if err := c.listen(cfg); err != nil {
		_ = c.lock.Close()
		return nil, fmt.Errorf("cannot use the control socket %s: %w", path, err)
	}
	return c, nil
}

func safeDirectory(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	fi, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if !fi.IsDir() {
		return fmt.Errorf("%s is not a directory", dir)
	}
	if fi.Mode().Perm()&0o022 != 0 && fi.Mode()&fs.ModeSticky == 0 {
		return fmt.Errorf("others may write to the directory %s (mode %04o): use a directory of your own", dir, fi.Mode().Perm())
	}
	return nil
}

// takeLock fails when another master has the lock, and says which.
func (c *control) takeLock() error {
	path := c.path + ".lock"
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("cannot open the lock file %s: %w", path, err)
	}
	f := os.NewFile(uintptr(fd), path)
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		pid, _ := io.ReadAll(io.LimitReader(f, 32))
		_ = f.Close()
		if err == unix.EWOULDBLOCK {
			return fmt.Errorf("another supervisord (pid %s) uses the control socket %s: stop it, or give this one its own by --socket or [control] socket", strings.TrimSpace(string(pid)), c.path)
		}
		return fmt.Errorf("cannot lock %s: %w", path, err)
	}
	if err := f.Truncate(0); err == nil {
		_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
		if err != nil {
			c.m.log.Warn("lock file not written", "err", err) // a full disk is no reason not to serve
		}
	}
	c.lock = f
	return nil
}

// listen replaces what a dead master left; the lock says that it is dead.
func (c *control) listen(cfg config.Control) error {
	fi, err := os.Lstat(c.path)
	switch {
	case err == nil && fi.Mode().Type() != fs.ModeSocket:
		return errors.New("there is a file of this name that is no socket")
	case err == nil:
		if err := os.Remove(c.path); err != nil {
			return err
		}
	}
	old := unix.Umask(0o177) // no worker runs yet, and nothing else of ours makes files now
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: c.path, Net: "unix"})
	unix.Umask(old)
	if err != nil {
		return err
	}
	ln.SetUnlinkOnClose(true)
	c.ln = ln
	if cfg.Group != "" {
		if c.group, err = groupID(cfg.Group); err == nil {
			err = os.Chown(c.path, -1, c.group)
		}
	}
	if err == nil && cfg.Mode != 0 {
		err = os.Chmod(c.path, cfg.Mode)
	}
	if err != nil {
		_ = ln.Close()
	}
	return err
}

// heal makes the socket again when somebody removed it. Requests under way go on.
func (c *control) heal() {
	if c == nil || c.srv == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, err := os.Lstat(c.path); !errors.Is(err, fs.ErrNotExist) || c.closed {
		return
	}
	old := c.ln
	if err := c.listen(c.cfg); err != nil {
		c.m.log.Warn("control socket was removed and cannot be made again", "addr", c.path, "err", err)
		return
	}
	old.SetUnlinkOnClose(false) // the path is the new one's
	_ = old.Close()
	c.m.log.Info("control socket was removed and made again", "addr", c.path)
	c.serveOn(c.ln)
}

func groupID(name string) (int, error) {
	if n, err := strconv.Atoi(name); err == nil {
		return n, nil
	}
	g, err := user.LookupGroup(name)
	if err != nil {
		return -1, err
	}
	return strconv.Atoi(g.Gid)
}

func (c *control) serve() {
	if c == nil {
		return
	}
	c.srv = &http.Server{
		Handler: c.routes(), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, MaxHeaderBytes: 16 << 10,
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			return context.WithValue(ctx, peerKey{}, peerOf(conn))
		},
		ErrorLog: nil,
	}
	c.serveOn(c.ln)
}

func (c *control) serveOn(ln net.Listener) {
	c.ended.Add(1)
	go func() {
		defer c.ended.Done()
		_ = c.srv.Serve(ln)
	}()
}

// close lets answers under way end: the client of a stop is to read its result.
func (c *control) close() {
	if c == nil {
		return
	}
	if c.srv == nil {
		_ = c.ln.Close()
		_ = c.lock.Close()
		return
	}
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if c.srv.Shutdown(ctx) != nil {
		_ = c.srv.Close()
	}
	c.ended.Wait()
	_ = c.lock.Close() // the file stays: removing it would let two masters lock two files of one name
}

type peerKey struct{}

// peer is who connected, as the kernel says (SO_PEERCRED, unix(7)).
type peer struct {
	pid      int32
	uid, gid uint32
	groups   []uint32
	ok       bool
}

func peerOf(conn net.Conn) peer {
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return peer{}
	}
	var p peer
	_ = raw.Control(func(fd uintptr) {
		cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err == nil {
			p = peer{pid: cred.Pid, uid: cred.Uid, gid: cred.Gid, ok: true, groups: peerGroups(int(fd))}
		}
	})
	return p
}

// mayRead and mayChange judge a caller: root and the daemon's user may do all, the
// socket's group may read.
func (c *control) mayChange(p peer) bool {
	return p.ok && (p.uid == 0 || int(p.uid) == os.Geteuid())
}

func (c *control) mayRead(p peer) bool {
	return c.mayChange(p) || p.ok && c.group >= 0 && (int(p.gid) == c.group || slices.Contains(p.groups, uint32(c.group)))
}

func writeJSON(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v)
}
