package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// ErrNoMaster means that no master answers at any of the paths tried.
var ErrNoMaster = errors.New("no master there")

// ErrUsage is wrapped by the error of a request that asks for what there is not,
// such as a pool with another name.
var ErrUsage = errors.New("wrong usage")

// refusal is a master's answer that is not 200. Its text is the master's own.
type refusal struct {
	text string
	code int
}

func (r *refusal) Error() string        { return r.text }
func (r *refusal) Is(target error) bool { return target == ErrUsage && r.code == http.StatusBadRequest }

// SocketCandidates lists where a master's control socket is looked for: the
// first member is where a master started now would make it.
func SocketCandidates() []string {
	var paths []string
	add := func(dir, rest string) {
		if dir != "" {
			paths = append(paths, filepath.Join(dir, rest))
		}
	}
	runtimeDir, _, _ := strings.Cut(os.Getenv("RUNTIME_DIRECTORY"), ":") // several: the first, systemd.exec(5)
	add(runtimeDir, "control.sock")
	add(os.Getenv("XDG_RUNTIME_DIR"), "supervisord/control.sock")
	add("/run/supervisord", "control.sock")
	return slices.Compact(paths)
}

// Client speaks to one master. Its methods block until the answer is there or
// the context ends.
type Client struct {
	Path string // of the socket it uses
	http http.Client
}

// Dial finds the master at one of the paths, in order, and returns a client for
// it. The error is ErrNoMaster, with the paths tried and why each failed, or
// that of the first socket that may not be opened.
func Dial(ctx context.Context, paths []string) (*Client, error) {
	var tried []string
	for _, path := range paths {
		c := &Client{Path: path}
		c.http.Transport = &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				var d net.Dialer
				return d.DialContext(ctx, "unix", path)
			},
		}
		var d net.Dialer
		conn, err := d.DialContext(ctx, "unix", path)
		switch {
		case err == nil:
			_ = conn.Close()
			return c, nil
		case errors.Is(err, fs.ErrPermission):
			return nil, fmt.Errorf("cannot open the control socket %s: %w (ask as root or as the daemon's user, or set [control] group)", path, syscall.EACCES)
		case errors.Is(err, fs.ErrNotExist) && lockedBy(path) != "":
			return nil, fmt.Errorf("the master with pid %[1]s runs, but its control socket %[2]s was removed (kill -HUP %[1]s makes it again)", lockedBy(path), path)
		case errors.Is(err, fs.ErrNotExist):
			tried = append(tried, path+" (there is none)")
		case errors.Is(err, syscall.ECONNREFUSED):
			tried = append(tried, path+" (nobody listens: its master is gone)")
		default:
			tried = append(tried, path+" ("+err.Error()+")")
		}
	}
	return nil, fmt.Errorf("%w; tried %s", ErrNoMaster, strings.Join(tried, ", "))
}

// lockedBy returns the process number in the lock file of a control socket, "" when
// nobody holds the lock.
func lockedBy(path string) string {
	f, err := os.Open(path + ".lock")
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }()
	if !errors.Is(syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB), syscall.EWOULDBLOCK) {
		return ""
	}
	pid, _ := io.ReadAll(io.LimitReader(f, 32))
	return strings.TrimSpace(string(pid))
}

// Close ends connections that are kept for another request.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Status asks for the whole state.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var s Status
	err := c.get(ctx, PathStatus, nil, &s)
	return s, err
}

// Connections counts the connections of a pool, or with "" of all.
func (c *Client) Connections(ctx context.Context, pool string, timeoutMS int64) (Connections, error) {
	var n Connections
	q := url.Values{}
	if pool != "" {
		q.Set("pool", pool)
	}
	if timeoutMS > 0 {
		q.Set("timeout_ms", fmt.Sprint(timeoutMS))
	}
	err := c.get(ctx, PathConnections, q, &n)
	return n, err
}

// Events calls fn for each event: those that are kept, then, when follow is set,
// those that come, until the context ends or fn returns an error.
func (c *Client) Events(ctx context.Context, follow bool, fn func(Event) error) error {
	q := url.Values{}
	if follow {
		q.Set("follow", "1")
	}
	resp, err := c.do(ctx, http.MethodGet, PathEvents+"?"+q.Encode(), nil)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	dec := json.NewDecoder(resp.Body)
	for {
		var e Event
		if err := dec.Decode(&e); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if err := fn(e); err != nil {
			return err
		}
	}
}

// Command sends a command and calls fn for each line of its answer before the
// last; the last is returned. When the connection ends without one the error says so.
func (c *Client) Command(ctx context.Context, path string, body any, fn func(Line)) (Result, error) {
	resp, err := c.do(ctx, http.MethodPost, path, body)
	if err != nil {
		return Result{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	dec := json.NewDecoder(resp.Body)
	for {
		var l Line
		if err := dec.Decode(&l); err != nil {
			if ctx.Err() != nil {
				return Result{}, ctx.Err()
			}
			return Result{}, fmt.Errorf("the master ended the conversation before the result (supervisord status shows what became of it; what had begun goes on, also when the master died): %w", err)
		}
		if l.Result != nil {
			return *l.Result, nil
		}
		fn(l)
	}
}

func (c *Client) get(ctx context.Context, path string, q url.Values, into any) error {
	if len(q) > 0 {
		path += "?" + q.Encode()
	}
	resp, err := c.do(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	return json.NewDecoder(resp.Body).Decode(into)
}

func (c *Client) do(ctx context.Context, method, path string, body any) (*http.Response, error) {
	var r io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		r = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://supervisord"+path, r)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		defer func() { _ = resp.Body.Close() }()
		var f Failure
		if json.NewDecoder(io.LimitReader(resp.Body, 64<<10)).Decode(&f) != nil || f.Error == "" {
			f.Error = resp.Status
		}
		return nil, &refusal{f.Error, resp.StatusCode}
	}
	return resp, nil
}
