package core

import (
	"cmp"
	"maps"
	"slices"

	"github.com/f72e338e/supervisord/internal/proto"
)

// StateVersion is the version of State. A core restores its own version and the
// one before.
const StateVersion = 1

// State is everything the core knows, as data. State → Restore → State is the
// identity at every step. Lists are sorted by their ids.
type State struct {
	Version    int         `json:"version"`
	Master     Master      `json:"master"`
	Pools      []Pool      `json:"pools,omitempty"`
	Workers    []Worker    `json:"workers,omitempty"`
	Handles    []Handle    `json:"handles,omitempty"`
	Gathers    []Gather    `json:"gathers,omitempty"`
	Operations []Operation `json:"operations,omitempty"`
	Change     *Change     `json:"change,omitempty"`
	Waiting    []Change    `json:"waiting,omitempty"`
}

// Master is the part of the state that belongs to no other record.
type Master struct {
	Epoch      uint64         `json:"epoch"`
	NextWorker proto.WorkerID `json:"next_worker"`
	NextHandle proto.HandleID `json:"next_handle"`
	NextGather uint64         `json:"next_gather"`
	NextID     uint64         `json:"next_id"`               // of requests to workers
	Random     uint64         `json:"random"`                // state of the jitter's generator
	Listeners  []ListenerRef  `json:"listeners,omitempty"`   // of the configuration in force
	MaxHandles int            `json:"max_handles,omitempty"` // of the configuration in force
	Ready      bool           `json:"ready,omitempty"`
	Stopping   bool           `json:"stopping,omitempty"`
	Fast       bool           `json:"fast,omitempty"`
	Code       int            `json:"code,omitempty"` // exit code when stopped
	Quit       bool           `json:"quit,omitempty"`
	TookOver   Time           `json:"took_over,omitempty"` // when this master took over; 0 = it began anew
}

// ListenerRef says which handle a configured listener is.
type ListenerRef struct {
	Name   string         `json:"name"`
	Handle proto.HandleID `json:"handle"`
}

// Pool is a pool and its slots.
type Pool struct {
	Name       string       `json:"name"`
	Desired    int          `json:"desired"` // what scale or the file asked for
	FileWish   int          `json:"file_wish"`
	Gen        uint64       `json:"gen"`      // the generation the pool is on
	LastGen    uint64       `json:"last_gen"` // highest number given out
	Gens       []Generation `json:"gens"`     // those that still matter, ascending
	Slots      []Slot       `json:"slots,omitempty"`
	ReadySlots int          `json:"ready_slots"` // slots whose Current is ready, below Desired
	DoneSlots  int          `json:"done_slots"`  // slots that ended for good, below Desired
	Live       int          `json:"live"`        // workers that exist
	Rollout    *Rollout     `json:"rollout,omitempty"`
	Queued     *Queued      `json:"queued,omitempty"`
	Awaiting   []OpID       `json:"awaiting,omitempty"` // operations that wait for the pool to settle
	Removed    bool         `json:"removed,omitempty"`
	WasReady   bool         `json:"was_ready,omitempty"`
}

// Generation is what a pool's workers of one roll-out are started from.
type Generation struct {
	Number  uint64           `json:"number"`
	Spec    PoolSpec         `json:"spec"`
	Handles []proto.HandleID `json:"handles,omitempty"` // of Spec.Listeners, in that order
	Live    int              `json:"live"`              // workers of it that exist
}

// Slot is a stable position in a pool.
type Slot struct {
	Index    int            `json:"index"`
	Gen      uint64         `json:"gen"`               // what its next worker is started from
	Current  proto.WorkerID `json:"current,omitempty"` // serves, or is on the way to
	Next     proto.WorkerID `json:"next,omitempty"`    // successor, until it is ready
	After    proto.WorkerID `json:"after,omitempty"`   // must be gone before another is started
	Last     proto.WorkerID `json:"last,omitempty"`    // the last worker that was started
	Restarts int            `json:"restarts"`
	Failures []Time         `json:"failures,omitempty"` // within the restart window
	InRow    int            `json:"in_row,omitempty"`   // failures since the last good worker
	RetryAt  Time           `json:"retry_at,omitempty"`
	Limited  bool           `json:"limited,omitempty"` // over max_restarts
	Serving  bool           `json:"serving,omitempty"` // Current is ready
	Done     bool           `json:"done,omitempty"`    // ended, and the policy wants no other
	LastExit string         `json:"last_exit,omitempty"`
}

// Worker is one process.
type Worker struct {
	ID        proto.WorkerID   `json:"id"`
	Pool      string           `json:"pool"`
	Slot      int              `json:"slot"`
	Gen       uint64           `json:"gen"`
	PID       int              `json:"pid,omitempty"`
	State     WorkerState      `json:"state"`
	Attached  bool             `json:"attached,omitempty"`  // is its slot's Current or Next
	Linked    bool             `json:"linked,omitempty"`    // has a link
	Greeted   bool             `json:"greeted,omitempty"`   // said hello
	Rejoining bool             `json:"rejoining,omitempty"` // ignored until its hello of this epoch, see takeover.go
	Features  []string         `json:"features,omitempty"`  // what it understands, see proto.FeatureHandover
	Begun     Time             `json:"begun"`
	ReadyAt   Time             `json:"ready_at,omitempty"`
	Barred    bool             `json:"barred,omitempty"`   // was ready, and gets no connections any more
	Deadline  Time             `json:"deadline,omitempty"` // of its state
	Killed    int              `json:"killed,omitempty"`   // SIGKILLs sent
	EndWish   bool             `json:"end_wish,omitempty"` // end it as soon as there is a process
	Cause     string           `json:"cause,omitempty"`    // why it is told to go
	Failure   string           `json:"failure,omitempty"`  // why it could not be started
	Holds     []proto.HandleID `json:"holds,omitempty"`
	Waits     []proto.HandleID `json:"waits,omitempty"`       // handles being bound for it
	Connected *int64           `json:"connections,omitempty"` // open, as it last said
	Accepted  uint64           `json:"accepted,omitempty"`
	Tells     bool             `json:"tells,omitempty"`    // it says itself what it has
	Asked     uint64           `json:"asked,omitempty"`    // id of the count request it has not answered
	Gathers   []uint64         `json:"gathers,omitempty"`  // that wait for its counts
	Pinged    bool             `json:"pinged,omitempty"`   // and has not shown life since
	DrainBy   Time             `json:"drain_by,omitempty"` // how far it may put off the end of its drain
	Text      string           `json:"text,omitempty"`     // its status line
	Refused   int              `json:"refused,omitempty"`  // requests that were refused
}

// Handle states.
const (
	HandleBinding = "binding"
	HandleOpen    = "open"
)

// Handle is one socket of the master.
type Handle struct {
	ID         proto.HandleID   `json:"id"`
	Key        proto.Key        `json:"key"`
	Spec       proto.SocketSpec `json:"spec"`
	Policy     string           `json:"policy"`
	State      string           `json:"state"`
	Bound      proto.Bound      `json:"bound"`
	Configured bool             `json:"configured,omitempty"`
	Holders    int              `json:"holders"`
	Waiters    []Waiter         `json:"waiters,omitempty"`
	Asker      string           `json:"asker,omitempty"` // whose options count: "web/0", or "configuration"
	Wishes     []Wish           `json:"wishes,omitempty"`
	Linger     Time             `json:"linger,omitempty"` // closes then
	Owner      string           `json:"owner,omitempty"`  // "web/0": the slot that has it alone; "" = shared
	Members    []Member         `json:"members,omitempty"`
	Left       []Left           `json:"left,omitempty"` // who gave it back of late, see suspects
	Harm       *Harm            `json:"harm,omitempty"` // nil: nobody ever harmed it
}

// Member is one socket of a handle that has more than one, see members.go; the
// first is the handle's own.
type Member struct {
	Owner string `json:"owner,omitempty"` // "web/0": the slot whose workers accept on it; "" = nobody
	Spare bool   `json:"spare,omitempty"` // its owner has another; this one is to get nothing new
}

// Waiter is a request that waits for a bind.
type Waiter struct {
	Worker proto.WorkerID `json:"worker"`
	Req    uint64         `json:"req"`
}

// Wish is an option that was asked for and not granted, because the first asker's counts.
type Wish struct {
	Asker   string `json:"asker"` // "web/0"
	Backlog int    `json:"backlog"`
}

// Gather is a count of connections under way.
type Gather struct {
	ID       uint64         `json:"id"`
	Op       OpID           `json:"op,omitempty"`
	Worker   proto.WorkerID `json:"worker,omitempty"` // or a worker asked
	Req      uint64         `json:"req,omitempty"`
	Pool     string         `json:"pool,omitempty"`
	Deadline Time           `json:"deadline"`
	Before   proto.WorkerID `json:"before"` // concerns workers with smaller ids
	Open     int            `json:"open"`   // workers that have not answered
}

// Operation is a command that somebody waits for.
type Operation struct {
	ID      OpID   `json:"id"`
	Kind    string `json:"kind"`
	Begun   Time   `json:"begun"`
	Pending int    `json:"pending"`
	Result  Result `json:"result"`
}

// Change is a configuration whose sockets are being bound.
type Change struct {
	Op      OpID             `json:"op"`
	Kind    string           `json:"kind"`
	Config  Config           `json:"config"`
	Force   []string         `json:"force,omitempty"`
	Only    []string         `json:"only,omitempty"`
	Binding []proto.HandleID `json:"binding,omitempty"` // not answered yet
	Handles []proto.HandleID `json:"handles,omitempty"` // of Config.Listeners, in that order; pinned while the change is under way
}

// State returns a deep copy of everything, proportional to its size: for an
// upgrade, a first record and tests. Day to day, Touched and the getters do.
func (c *Core) State() State {
	s := State{Version: StateVersion, Master: c.m.clone(), Waiting: cloneAll(c.waiting, Change.clone)}
	if c.change != nil {
		ch := c.change.clone()
		s.Change = &ch
	}
	for _, name := range slices.Sorted(maps.Keys(c.pools)) {
		s.Pools = append(s.Pools, c.pools[name].clone())
	}
	s.Workers = sortedBy(c.workers, Worker.clone, func(w Worker) uint64 { return uint64(w.ID) })
	s.Handles = sortedBy(c.handles, Handle.clone, func(h Handle) uint64 { return uint64(h.ID) })
	s.Gathers = sortedBy(c.gathers, func(g Gather) Gather { return g }, func(g Gather) uint64 { return g.ID })
	s.Operations = sortedBy(c.ops, func(o Operation) Operation { return o }, func(o Operation) uint64 { return uint64(o.ID) })
	return s
}

func sortedBy[K comparable, T any](m map[K]*T, clone func(T) T, id func(T) uint64) []T {
	var out []T
	for _, p := range m {
		out = append(out, clone(*p))
	}
	slices.SortFunc(out, func(a, b T) int { return cmp.Compare(id(a), id(b)) })
	return out
}

func cloneAll[T any](in []T, clone func(T) T) []T {
	if in == nil {
		return nil
	}
	out := make([]T, len(in))
	for i, v := range in {
		out[i] = clone(v)
	}
	return out
}

func (p Pool) clone() Pool {
	p.Gens = cloneAll(p.Gens, func(g Generation) Generation { g.Handles = slices.Clone(g.Handles); return g })
	p.Slots = cloneAll(p.Slots, func(s Slot) Slot { s.Failures = slices.Clone(s.Failures); return s })
	p.Awaiting = slices.Clone(p.Awaiting)
	if p.Rollout != nil {
		r := *p.Rollout // Order is never written to, so it is shared
		r.Active, r.Ops = slices.Clone(r.Active), slices.Clone(r.Ops)
		p.Rollout = &r
	}
	if p.Queued != nil {
		q := *p.Queued
		q.Ops, q.Handles = slices.Clone(q.Ops), slices.Clone(q.Handles)
		p.Queued = &q
	}
	return p
}

func (m Master) clone() Master {
	m.Listeners = slices.Clone(m.Listeners)
	return m
}

func (w Worker) clone() Worker {
	w.Holds, w.Waits, w.Gathers = slices.Clone(w.Holds), slices.Clone(w.Waits), slices.Clone(w.Gathers)
	w.Features = slices.Clone(w.Features)
	if w.Connected != nil {
		n := *w.Connected
		w.Connected = &n
	}
	return w
}

func (h Handle) clone() Handle {
	h.Waiters, h.Wishes, h.Members = slices.Clone(h.Waiters), slices.Clone(h.Wishes), slices.Clone(h.Members)
	h.Left = slices.Clone(h.Left)
	if h.Harm != nil {
		hm := *h.Harm
		hm.Stale = slices.Clone(hm.Stale)
		h.Harm = &hm
	}
	return h
}

func (ch Change) clone() Change {
	ch.Force, ch.Only, ch.Binding, ch.Handles = slices.Clone(ch.Force), slices.Clone(ch.Only), slices.Clone(ch.Binding), slices.Clone(ch.Handles)
	ch.Config.Listeners, ch.Config.Pools = slices.Clone(ch.Config.Listeners), slices.Clone(ch.Config.Pools)
	return ch
}
