package master

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/internal/api"
	"github.com/f72e338e/supervisord/internal/core"
)

// route is one row of the control API.
type route struct {
	method, path string
	change       bool // for those who may change something
	handle       func(c *control, w http.ResponseWriter, r *http.Request)
}

var routes = []route{
	{http.MethodGet, api.PathStatus, false, (*control).getStatus},
	{http.MethodGet, api.PathConnections, false, (*control).getConnections},
	{http.MethodGet, api.PathEvents, false, (*control).getEvents},
	{http.MethodPost, api.PathReload, true, (*control).postReload},
	{http.MethodPost, api.PathRestart, true, (*control).postRestart},
	{http.MethodPost, api.PathScale, true, (*control).postScale},
	{http.MethodPost, api.PathStop, true, (*control).postStop},
}

func (c *control) routes() http.Handler {
	mux := http.NewServeMux()
	for _, rt := range routes {
		mux.HandleFunc(rt.method+" "+rt.path, func(w http.ResponseWriter, r *http.Request) {
			p, _ := r.Context().Value(peerKey{}).(peer)
			if rt.change && !c.mayChange(p) || !c.mayRead(p) {
				c.m.log.Warn("control request refused", "pid", p.pid, "cause", r.Method+" "+r.URL.Path+" by uid "+strconv.Itoa(int(p.uid)))
				writeJSON(w, http.StatusForbidden, api.Failure{Error: "uid " + strconv.Itoa(int(p.uid)) + " may not do this (root and the daemon's user may; the control socket's group may read)"})
				return
			}
			rt.handle(c, w, r)
		})
	}
	return mux
}

func (c *control) getStatus(w http.ResponseWriter, _ *http.Request) {
	c.m.refreshCounts()
	writeJSON(w, http.StatusOK, c.m.status())
}

func (c *control) getConnections(w http.ResponseWriter, r *http.Request) {
	var timeout int64
	if v := r.FormValue("timeout_ms"); v != "" {
		var err error
		if timeout, err = strconv.ParseInt(v, 10, 64); err != nil || timeout <= 0 {
			writeJSON(w, http.StatusBadRequest, api.Failure{Error: "timeout_ms must be a number above 0"})
			return
		}
	}
	n, err := c.m.connections(r.FormValue("pool"), timeout)
	if err != nil {
		writeJSON(w, http.StatusBadRequest, api.Failure{Error: err.Error()})
		return
	}
	writeJSON(w, http.StatusOK, n)
}

func (c *control) getEvents(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/x-ndjson")
	s := newStream(w)
	var seen uint64
	for {
		events, wake := c.m.ring.since(seen)
		for i := range events {
			seen = events[i].ID
			if !s.write(events[i]) {
				return
			}
		}
		if r.FormValue("follow") == "" || !s.flush() {
			return
		}
		select {
		case <-wake:
		case <-r.Context().Done():
			return
		case <-c.m.done:
			return
		}
	}
}

func (c *control) postReload(w http.ResponseWriter, r *http.Request) {
	c.command(w, r, c.m.reload)
}

func (c *control) postRestart(w http.ResponseWriter, r *http.Request) {
	var req api.RestartRequest
	if decodeBody(w, r, &req) {
		c.command(w, r, func(taken func(core.OpID), done func(api.Result)) { c.m.restart(req.Pool, taken, done) })
	}
}

func (c *control) postScale(w http.ResponseWriter, r *http.Request) {
	var req api.ScaleRequest
	if decodeBody(w, r, &req) {
		c.command(w, r, func(taken func(core.OpID), done func(api.Result)) {
			c.m.scale(req.Pool, req.Workers, taken, done)
		})
	}
}

func (c *control) postStop(w http.ResponseWriter, r *http.Request) {
	var req api.StopRequest
	if decodeBody(w, r, &req) {
		c.command(w, r, func(taken func(core.OpID), done func(api.Result)) { c.m.stop(req.Fast, taken, done) })
	}
}

func decodeBody(w http.ResponseWriter, r *http.Request, into any) bool {
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil && !errors.Is(err, io.EOF) {
		writeJSON(w, http.StatusBadRequest, api.Failure{Error: "the request is not understood: " + err.Error()})
		return false
	}
	return true
}

// command runs one and streams what happens until its result. A client that goes
// away does not end it.
func (c *control) command(w http.ResponseWriter, r *http.Request, run func(taken func(core.OpID), done func(api.Result))) {
	w.Header().Set("Content-Type", "application/x-ndjson")
	s := newStream(w)
	seen := c.m.ring.last()
	result, taken := make(chan api.Result, 1), make(chan core.OpID, 1)
	go run(func(op core.OpID) { taken <- op }, func(res api.Result) { result <- res })
	var wake <-chan struct{} // nil until the operation's number was said, which comes first
	for {
		select {
		case op := <-taken:
			s.write(api.Line{Operation: uint64(op)})
		case res := <-result:
			select {
			case op := <-taken:
				s.write(api.Line{Operation: uint64(op)})
			default:
			}
			c.rest(s, seen)
			s.write(api.Line{Result: &res})
			s.flush()
			return
		case <-wake:
		case <-r.Context().Done():
			return
		}
		var events []api.Event
		events, wake = c.m.ring.since(seen)
		for i := range events {
			seen = events[i].ID
			s.write(api.Line{Event: &events[i]})
		}
		s.flush()
	}
}

// rest writes the events up to the result.
func (c *control) rest(s *stream, seen uint64) {
	events, _ := c.m.ring.since(seen)
	for i := range events {
		s.write(api.Line{Event: &events[i]})
	}
}

// stream writes JSON lines to a client, each within a bounded time.
type stream struct {
	enc *json.Encoder
	rc  *http.ResponseController
}

const streamTimeout = 10 * time.Second

func newStream(w http.ResponseWriter) *stream {
	return &stream{enc: json.NewEncoder(w), rc: http.NewResponseController(w)}
}

func (s *stream) write(v any) bool {
	_ = s.rc.SetWriteDeadline(time.Now().Add(streamTimeout))
	return s.enc.Encode(v) == nil
}

func (s *stream) flush() bool { return s.rc.Flush() == nil }

// peerGroups returns the supplementary groups of the peer (SO_PEERGROUPS,
// unix(7)), for which x/sys has no call.
func peerGroups(fd int) []uint32 {
	groups := make([]uint32, 64)
	size := uint32(len(groups) * 4)
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
		uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return nil
	}
	return groups[:size/4]
}
