package load

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"strings"
	"time"
)

// Bounds and defaults of a plan.
const (
	DefaultTimeout = 5 * time.Second
	DefaultLate    = 900 * time.Millisecond
	DefaultMaxOpen = 10_000
	DefaultCount   = 10_000_000
	DefaultSources = 16

	maxDuration = 24 * time.Hour
	maxRate     = 1e6
	maxClients  = 100_000
	maxAnswer   = 1 << 20
	maxThreads  = 64

	// tolerance is how much of a stated rate may be missed.
	tolerance = 0.02
)

// ErrNotSupported is returned by [Run] on systems other than Linux.
var ErrNotSupported = errors.New("load: not supported on this system")

// Proto is what a group speaks.
type Proto string

const (
	// HTTP sends GET and wants a 200 with Content-Length.
	HTTP Proto = "http"
	// Echo sends a line, different each time, and wants it back.
	Echo Proto = "echo"
)

// Group is one kind of client. Rate or Clients must be set, not both.
type Group struct {
	Name   string // for the report; empty: its place in the plan
	Target string // ADDRESS:PORT of loopback, unix:PATH, /PATH or @NAME
	Proto  Proto  // empty: HTTP

	Path  string                  // HTTP only; empty: /
	Match *regexp.Regexp          // the body must match; nil: any
	Check func(body []byte) error // the body must pass; called on Run's goroutine, must not block nor keep body

	Rate      float64       // new connections a second, on a fixed schedule; up to 1e6
	Clients   int           // how many clients; up to 100000
	KeepAlive bool          // clients keep their connection
	Every     time.Duration // period of each client; 0: the next request follows the answer

	Count   int  // most requests of this group; 0: DefaultCount
	Sources int  // source addresses for targets in 127.0.0.0/8; 0: DefaultSources, 1: the kernel's choice
	Reset   bool // close with RST (SO_LINGER 0) instead of FIN; the server's log may show it
}

// Plan is what to send, and how to judge it.
type Plan struct {
	Groups   []Group
	Duration time.Duration // requests begin within it; required, at most 24 h

	Timeout     time.Duration // for one request, from its begin; 0: DefaultTimeout
	Late        time.Duration // slowest right answer; 0: DefaultLate
	MaxOpen     int           // most open connections; 0: DefaultMaxOpen. What is beyond waits, and its latency runs
	Examples    int           // failures kept as text for each kind; 0: 5
	IgnoreDrops bool          // a listen queue that overflowed is reported only; other programs of the machine count too
	CPUOf       []int         // report the CPU time of these processes, to 10 ms
	Threads     int           // of the client, which share clients, rates and counts; 0: 1. Check and Progress are called by each

	// Progress, if not nil, is called about every 50 ms on Run's goroutine
	// and must not block. A test can wait here for the load to flow.
	Progress func(Progress)
}

// Progress is how far a run is.
type Progress struct {
	Elapsed                   time.Duration
	Begun, Answered, Failures int
}

// prepared returns a checked copy with the defaults filled in.
func (p Plan) prepared() (Plan, []target, error) {
	if p.Duration <= 0 || p.Duration > maxDuration {
		return p, nil, fmt.Errorf("cannot run for %v: the duration must be above 0 and at most %v", p.Duration, maxDuration)
	}
	if len(p.Groups) == 0 {
		return p, nil, errors.New("cannot run a plan without a group")
	}
	if p.Threads < 0 || p.Threads > maxThreads {
		return p, nil, fmt.Errorf("cannot run %d threads: 1 to %d", p.Threads, maxThreads)
	}
	if p.Timeout < 0 || p.Late < 0 || p.MaxOpen < 0 || p.Examples < 0 {
		return p, nil, errors.New("cannot run a plan with a negative limit")
	}
	p.Timeout = orDefault(p.Timeout, DefaultTimeout)
	p.Late = orDefault(p.Late, DefaultLate)
	p.MaxOpen = orDefault(p.MaxOpen, DefaultMaxOpen)
	p.Examples = orDefault(p.Examples, 5)

	p.Groups = append([]Group(nil), p.Groups...)
	targets := make([]target, len(p.Groups))
	clients := 0
	for i := range p.Groups {
		g := &p.Groups[i]
		if g.Name == "" {
			g.Name = fmt.Sprintf("group%d", i)
		}
		t, err := g.prepare()
		if err != nil {
			return p, nil, fmt.Errorf("group %s: %w", g.Name, err)
		}
		if g.Clients > 0 && g.Clients < p.Threads {
			return p, nil, fmt.Errorf("group %s: %d clients cannot be shared by %d threads", g.Name, g.Clients, p.Threads)
		}
		targets[i] = t
		clients += g.Clients
	}
	if clients > p.MaxOpen {
		return p, nil, fmt.Errorf("cannot run %d clients with at most %d open connections", clients, p.MaxOpen)
	}
	return p, targets, nil
}

// prepare checks a group and fills in its defaults.
func (g *Group) prepare() (target, error) {
	g.Proto = orDefault(g.Proto, HTTP)
	g.Path = orDefault(g.Path, "/")
	g.Count = orDefault(g.Count, DefaultCount)
	g.Sources = orDefault(g.Sources, DefaultSources)
	switch {
	case g.Proto != HTTP && g.Proto != Echo:
		return target{}, fmt.Errorf("unknown protocol %q (http or echo)", g.Proto)
	case !strings.HasPrefix(g.Path, "/") || strings.ContainsAny(g.Path, " \r\n") || len(g.Path) > 4096:
		return target{}, fmt.Errorf("%q is no path", g.Path)
	case g.Rate < 0 || g.Rate > maxRate || math.IsNaN(g.Rate):
		return target{}, fmt.Errorf("a rate of %v is out of range (up to %v)", g.Rate, maxRate)
	case g.Clients < 0 || g.Clients > maxClients:
		return target{}, fmt.Errorf("%d clients are out of range (up to %d)", g.Clients, maxClients)
	case (g.Rate > 0) == (g.Clients > 0):
		return target{}, errors.New("set either a rate or clients")
	case g.Rate > 0 && (g.KeepAlive || g.Every != 0):
		return target{}, errors.New("a rate opens a new connection for each request (for kept ones set clients and every)")
	case g.Every < 0 || g.Count < 0 || g.Sources < 0 || g.Sources > 250:
		return target{}, errors.New("every, count or sources is out of range")
	}
	return parseTarget(g.Target)
}

// stated is the rate the group promises; 0 for a loop that follows the answers.
func (g *Group) stated() float64 {
	if g.Every > 0 {
		return float64(g.Clients) / g.Every.Seconds()
	}
	return g.Rate
}

func orDefault[T comparable](v, d T) T {
	var zero T
	if v == zero {
		return d
	}
	return v
}
