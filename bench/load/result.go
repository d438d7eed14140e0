package load

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Kind is a way in which a request was lost; doc.go says what each means.
type Kind string

// The kinds of failure.
const (
	Refused         Kind = "refused"
	QueueFull       Kind = "queue-full"
	Reset           Kind = "reset"
	EOFBeforeAnswer Kind = "eof-before-answer"
	EOFInAnswer     Kind = "eof-in-answer"
	Timeout         Kind = "timeout"
	WrongAnswer     Kind = "wrong-answer"
	Late            Kind = "late"
	Other           Kind = "other"
)

// Kinds lists all kinds in the order of the reports.
var Kinds = []Kind{Refused, QueueFull, Reset, EOFBeforeAnswer, EOFInAnswer, Timeout, WrongAnswer, Late, Other}

// Figures are the counts of a group, or of all groups. Every request that was
// begun ends in one place: Begun = Answered + Failures() - Unasked.
type Figures struct {
	Name     string       `json:"name"`
	Begun    int          `json:"begun"`
	Answered int          `json:"answered"`         // right and in time
	Failed   map[Kind]int `json:"failed"`           // only kinds that occurred
	Reused   int          `json:"failed_on_reused"` // those of Failed on a connection that had answered before
	Unasked  int          `json:"failed_unasked"`   // those of Failed outside a request: an idle connection was reset or spoke

	Connections int `json:"connections"`  // attempts to connect
	IdleClosed  int `json:"idle_closed"`  // the server closed an idle kept connection
	AskedClosed int `json:"asked_closed"` // the server said Connection: close on a kept connection
	ResetAfter  int `json:"reset_after"`  // RST after a full answer that ends the connection; not a failure

	Stated  float64       `json:"stated_rate"` // requests a second; 0: none
	Due     int           `json:"due"`         // what the stated rate means in the time of the run
	Rate    float64       `json:"rate"`        // requests begun a second
	Latency Latency       `json:"latency"`
	MaxLag  time.Duration `json:"max_lag_ns"` // latest begin after its scheduled time: a slow client, no room, or a client that waited for its answer

	PIDs    map[int]int `json:"pids"`    // answers by worker
	Workers []Worker    `json:"workers"` // the same with times, by first answer

	hist *hist
}

// Worker is one process that answered, with the offsets of its first and last answer.
type Worker struct {
	PID     int           `json:"pid"`
	Answers int           `json:"answers"`
	First   time.Duration `json:"first_ns"`
	Last    time.Duration `json:"last_ns"`
}

// Example is one failure as text.
type Example struct {
	At     time.Duration `json:"at_ns"` // after Result.Start
	Kind   Kind          `json:"kind"`
	Group  string        `json:"group"`
	PID    int           `json:"pid,omitempty"` // from the answer, or the last answer on this connection; 0: unknown
	Reused bool          `json:"reused,omitempty"`
	Text   string        `json:"text"`
}

func (e Example) String() string {
	s := fmt.Sprintf("at %v: %s: %s: %s", e.At.Round(time.Microsecond), e.Group, e.Kind, e.Text)
	if e.PID != 0 {
		s += fmt.Sprintf(" (worker %d)", e.PID)
	}
	if e.Reused {
		s += " (reused connection)"
	}
	return s
}

// Result is the outcome of a run. Its own figures are those of all groups.
type Result struct {
	Figures
	Groups   []Figures     `json:"groups"`
	Start    time.Time     `json:"start"`
	Elapsed  time.Duration `json:"elapsed_ns"` // time in which requests began; below the plan's if the context ended it
	Examples []Example     `json:"examples"`

	Drops        Drops  `json:"drops"` // added during the run
	DropsIgnored bool   `json:"drops_ignored"`
	DropsErr     string `json:"drops_error,omitempty"` // why they could not be read

	ClientCPU time.Duration         `json:"client_cpu_ns"` // of the client's thread
	CPU       map[int]time.Duration `json:"cpu_ns"`        // of the processes of Plan.CPUOf that lived through the run
	Problems  []string              `json:"problems"`      // all that is wrong; empty: nothing
}

// Failures is the number of failures of all kinds.
func (f *Figures) Failures() int {
	n := 0
	for _, k := range f.Failed {
		n += k
	}
	return n
}

// Failures is the number of failures of all kinds and groups.
func (r Result) Failures() int { return r.Figures.Failures() }

// OK reports whether nothing was lost and the run did what its plan said.
func (r Result) OK() bool { return len(r.Problems) == 0 }

// Err describes everything that is wrong, or is nil.
func (r Result) Err() error {
	if r.OK() {
		return nil
	}
	text := "load: " + strings.Join(r.Problems, "; ")
	for _, e := range r.Examples {
		text += "\n\t" + e.String()
	}
	return errors.New(text)
}

// total sums up the groups.
func total(groups []Figures) Figures {
	t := Figures{Name: "total", Failed: map[Kind]int{}, PIDs: map[int]int{}, hist: new(hist)}
	workers := map[int]Worker{}
	for i := range groups {
		g := &groups[i]
		t.Begun += g.Begun
		t.Answered += g.Answered
		t.Reused += g.Reused
		t.Unasked += g.Unasked
		t.Connections += g.Connections
		t.IdleClosed += g.IdleClosed
		t.AskedClosed += g.AskedClosed
		t.ResetAfter += g.ResetAfter
		t.Due += g.Due
		t.Rate += g.Rate
		t.Stated += g.Stated
		t.MaxLag = max(t.MaxLag, g.MaxLag)
		t.hist.merge(g.hist)
		for k, n := range g.Failed {
			t.Failed[k] += n
		}
		for pid, n := range g.PIDs {
			t.PIDs[pid] += n
		}
		for _, w := range g.Workers {
			if o, seen := workers[w.PID]; seen {
				w = Worker{w.PID, w.Answers + o.Answers, min(w.First, o.First), max(w.Last, o.Last)}
			}
			workers[w.PID] = w
		}
	}
	t.Latency = t.hist.latency()
	t.Workers = sorted(workers)
	return t
}

func sorted(workers map[int]Worker) []Worker {
	list := make([]Worker, 0, len(workers))
	for _, w := range workers {
		list = append(list, w)
	}
	slices.SortFunc(list, func(a, b Worker) int {
		if a.First != b.First {
			return int(min(max(a.First-b.First, -1), 1))
		}
		return a.PID - b.PID
	})
	return list
}

// judge fills in Problems.
func (r *Result) judge(tcp bool) {
	r.Problems = []string{}
	wrong := func(format string, a ...any) { r.Problems = append(r.Problems, fmt.Sprintf(format, a...)) }
	if n := r.Failures(); n > 0 {
		var parts []string
		for _, k := range Kinds {
			if c := r.Failed[k]; c > 0 {
				parts = append(parts, fmt.Sprintf("%s %d", k, c))
			}
		}
		wrong("%d of %d requests failed: %s", n, r.Begun, strings.Join(parts, ", "))
	}
	for i := range r.Groups {
		g := &r.Groups[i]
		// One request of grace: the last tick may fall on the end of the run.
		if g.Stated > 0 && g.Rate*r.Elapsed.Seconds() < float64(g.Due)*(1-tolerance)-1 {
			wrong("group %s: rate not reached: %.1f/s of %.1f/s stated, %d of %d requests, latest begin %v behind",
				g.Name, g.Rate, g.Stated, g.Begun, g.Due, g.MaxLag.Round(time.Microsecond))
		}
		if g.Answered == 0 {
			wrong("group %s: nothing was answered", g.Name)
		}
		if g.Begun != g.Answered+g.Failures()-g.Unasked {
			wrong("group %s: a fault of the client: %d begun, %d answered, %d failed", g.Name, g.Begun, g.Answered, g.Failures()-g.Unasked)
		}
	}
	switch {
	case !tcp || r.DropsIgnored:
	case r.DropsErr != "":
		wrong("%s", r.DropsErr)
	case r.Drops != Drops{}:
		wrong("the kernel dropped connections: ListenOverflows +%d, ListenDrops +%d", r.Drops.ListenOverflows, r.Drops.ListenDrops)
	}
}
