package core

import (
	"container/heap"
	"fmt"
	"slices"
	"time"

	"github.com/f72e338e/supervisord/internal/proto"
)

// Core is the state machine. One goroutine owns it; nothing in it is locked.
type Core struct {
	m       Master
	pools   map[string]*Pool
	workers map[proto.WorkerID]*Worker
	handles map[proto.HandleID]*Handle
	gathers map[uint64]*Gather
	ops     map[OpID]*Operation
	change  *Change
	waiting []Change

	// Derived from the above; rebuilt by Restore.
	places map[proto.Key][]proto.HandleID // by Key.Place, in order of id
	timers timers
	live   int // workers that exist

	// Of the step under way.
	now      Time
	applying bool
	out      []Action
	touched  map[Ref]struct{}
	wide     bool // touched grew large in the last step
}

// New returns an empty core. epoch is the master's incarnation, from 1; seed
// starts the generator of the restart delays' jitter.
func New(epoch, seed uint64) *Core {
	c := empty()
	c.m = Master{Epoch: epoch, NextWorker: 1, NextHandle: 1, NextGather: 1, NextID: 1, Random: seed}
	return c
}

func empty() *Core {
	return &Core{
		pools: map[string]*Pool{}, workers: map[proto.WorkerID]*Worker{}, handles: map[proto.HandleID]*Handle{},
		gathers: map[uint64]*Gather{}, ops: map[OpID]*Operation{},
		places: map[proto.Key][]proto.HandleID{}, touched: map[Ref]struct{}{},
	}
}

// Restore returns a core equal to the one that gave the State, which it takes. In
// another process its first event is TookOver.
// Error: a version that this core does not know.
func Restore(s State) (*Core, error) {
	if s.Version != StateVersion {
		return nil, fmt.Errorf("state version %d is not known (this master knows %d)", s.Version, StateVersion)
	}
	c := empty()
	c.m, c.change, c.waiting = s.Master, s.Change, s.Waiting
	for i := range s.Pools {
		p := &s.Pools[i]
		c.pools[p.Name] = p
		for j := range p.Slots {
			c.arm(p.Slots[j].RetryAt, slotRef(p, &p.Slots[j]))
		}
		if p.Rollout != nil {
			c.arm(p.Rollout.Deadline, poolRef(p))
		}
	}
	for i := range s.Workers {
		w := &s.Workers[i]
		c.workers[w.ID] = w
		c.live++
		c.arm(w.Deadline, workerRef(w))
	}
	for i := range s.Handles {
		h := &s.Handles[i]
		c.handles[h.ID] = h
		c.index(h)
		c.arm(h.Linger, handleRef(h))
		if h.Harm != nil {
			c.arm(h.Harm.At, handleRef(h))
		}
	}
	for i := range s.Gathers {
		c.gathers[s.Gathers[i].ID] = &s.Gathers[i]
		c.arm(s.Gathers[i].Deadline, Ref{Kind: RefGather, ID: s.Gathers[i].ID})
	}
	for i := range s.Operations {
		c.ops[s.Operations[i].ID] = &s.Operations[i]
	}
	return c, nil
}

// Step takes one event at the time now, which never goes back, and returns what
// is to be done about it. The returned slice is the caller's.
func (c *Core) Step(now Time, ev Event) []Action {
	c.now, c.out = now, nil
	if c.wide { // clearing a map costs what it once held
		c.touched = map[Ref]struct{}{}
	}
	clear(c.touched)
	switch ev := ev.(type) {
	case Tick:
		// Deadlines that are due are met below, whatever the event was.
	case TookOver:
		c.tookOver(ev)
	case StartLost:
		if w := c.workers[ev.Worker]; w != nil {
			c.startLost(w)
		}
	case Configured:
		c.configured(ev)
	case ScaleAsked:
		c.scale(ev)
	case StopAsked:
		c.stop(ev)
	case CountsAsked:
		c.countsAsked(ev)
	case BoundHandle:
		c.bound(ev)
	case BindFailed:
		c.bindFailed(ev)
	case Sabotaged:
		c.sabotaged(ev)
	case Mended:
		c.mended(ev)
	case Received:
		if w := c.workers[ev.Worker]; w != nil {
			c.received(w, ev.Envelope)
		}
	case Said:
		if w := c.workers[ev.Worker]; w != nil {
			c.said(w, ev)
		}
	case Notified:
		if w := c.workers[ev.Worker]; w != nil {
			c.notified(w, ev)
		}
	case Accepting:
		if w := c.workers[ev.Worker]; w != nil && c.spec(w).Ready == ReadyListening {
			c.life(w, evReady, input{})
		}
	case Counted:
		if w := c.workers[ev.Worker]; w != nil {
			c.surveyed(w, ev)
		}
	case Spawned:
		if w := c.workers[ev.Worker]; w != nil {
			w.PID = ev.PID
			c.life(w, evSpawned, input{})
		}
	case SpawnFailed:
		c.lifeOf(ev.Worker, evSpawnFailed, input{cause: ev.Cause})
	case StageFailed:
		c.lifeOf(ev.Worker, evStageFailed, input{cause: ev.Cause})
	case Exited:
		c.lifeOf(ev.Worker, evExited, input{exit: ev.Exit})
	case LinkClosed:
		c.lifeOf(ev.Worker, evLinkClosed, input{})
	case LinkBroken:
		c.lifeOf(ev.Worker, evLinkBroken, input{cause: ev.Cause})
	}
	c.due()
	c.wide = len(c.touched) > 64
	return c.out
}

// NextDeadline returns when a Tick is due at the latest; false when nothing is.
func (c *Core) NextDeadline() (Time, bool) {
	for len(c.timers) > 0 {
		if t := c.timers[0]; c.deadlineOf(t.ref) == t.at {
			return t.at, true
		}
		heap.Pop(&c.timers)
	}
	return 0, false
}

// Touched returns the records that the last step changed, made or removed.
func (c *Core) Touched() []Ref {
	refs := make([]Ref, 0, len(c.touched))
	for r := range c.touched {
		refs = append(refs, r)
	}
	return refs
}

// due meets every deadline that has come.
func (c *Core) due() {
	for {
		at, ok := c.NextDeadline()
		if !ok || at > c.now {
			return
		}
		t := heap.Pop(&c.timers).(timer)
		c.expire(t.ref)
	}
}

func (c *Core) expire(ref Ref) {
	switch ref.Kind {
	case RefWorker:
		w := c.workers[proto.WorkerID(ref.ID)]
		w.Deadline = 0
		c.life(w, evDeadline, input{})
	case RefSlot:
		p := c.pools[ref.Pool]
		s := &p.Slots[ref.ID]
		s.RetryAt = 0
		c.touch(ref)
		c.fill(p, s)
	case RefPool:
		p := c.pools[ref.Pool]
		p.Rollout.Deadline = 0
		c.touch(ref)
		c.advance(p)
	case RefHandle:
		h := c.handles[proto.HandleID(ref.ID)]
		if h.Harm != nil && h.Harm.At == h.deadline() {
			c.harmDue(h)
			return
		}
		h.Linger = 0
		if !c.pinned(h) {
			c.release(h, "linger is over")
		}
	case RefGather:
		c.finishGather(c.gathers[ref.ID])
	}
}

// deadlineOf returns the deadline that a record has now, 0 for none.
func (c *Core) deadlineOf(ref Ref) Time {
	switch ref.Kind {
	case RefWorker:
		if w := c.workers[proto.WorkerID(ref.ID)]; w != nil {
			return w.Deadline
		}
	case RefSlot:
		if p := c.pools[ref.Pool]; p != nil && int(ref.ID) < len(p.Slots) {
			return p.Slots[ref.ID].RetryAt
		}
	case RefPool:
		if p := c.pools[ref.Pool]; p != nil && p.Rollout != nil {
			return p.Rollout.Deadline
		}
	case RefHandle:
		if h := c.handles[proto.HandleID(ref.ID)]; h != nil {
			return h.deadline()
		}
	case RefGather:
		if g := c.gathers[ref.ID]; g != nil {
			return g.Deadline
		}
	}
	return 0
}

// arm enters a deadline that was just set on the record.
func (c *Core) arm(at Time, ref Ref) {
	if at != 0 {
		heap.Push(&c.timers, timer{at, ref})
	}
}

func (c *Core) touch(refs ...Ref) {
	for _, r := range refs {
		c.touched[r] = struct{}{}
	}
}

// touchAll is for a pool whose slots go.
func (c *Core) touchAll(p *Pool) {
	c.touch(poolRef(p))
	for i := range p.Slots {
		c.touch(slotRef(p, &p.Slots[i]))
	}
}

func (c *Core) do(a ...Action) { c.out = append(c.out, a...) }

func poolRef(p *Pool) Ref          { return Ref{Kind: RefPool, Pool: p.Name} }
func slotRef(p *Pool, s *Slot) Ref { return Ref{Kind: RefSlot, Pool: p.Name, ID: uint64(s.Index)} }
func workerRef(w *Worker) Ref      { return Ref{Kind: RefWorker, ID: uint64(w.ID)} }
func handleRef(h *Handle) Ref      { return Ref{Kind: RefHandle, ID: uint64(h.ID)} }

// Master returns the master's record.
func (c *Core) Master() Master { return c.m }

// Pool returns a copy of a pool's record without its slots; false if there is none.
func (c *Core) Pool(name string) (Pool, bool) {
	p := c.pools[name]
	if p == nil {
		return Pool{}, false
	}
	q := *p
	q.Slots = nil
	return q.clone(), true
}

// Slot returns a copy of a slot's record.
func (c *Core) Slot(pool string, index int) (Slot, bool) {
	p := c.pools[pool]
	if p == nil || index >= len(p.Slots) {
		return Slot{}, false
	}
	s := p.Slots[index]
	s.Failures = slices.Clone(s.Failures)
	return s, true
}

// Worker returns a copy of a worker's record.
func (c *Core) Worker(id proto.WorkerID) (Worker, bool) {
	w := c.workers[id]
	if w == nil {
		return Worker{}, false
	}
	return w.clone(), true
}

// Handle returns a copy of a handle's record.
func (c *Core) Handle(id proto.HandleID) (Handle, bool) {
	h := c.handles[id]
	if h == nil {
		return Handle{}, false
	}
	return h.clone(), true
}

// jitter returns d, more or less up to a fifth of it.
func (c *Core) jitter(d time.Duration) time.Duration {
	c.touch(Ref{Kind: RefMaster})
	c.m.Random += 0x9e3779b97f4a7c15 // splitmix64, Steele et al. 2014
	z := c.m.Random
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	z ^= z >> 31
	return d + time.Duration(float64(d)*0.2*(float64(z>>11)/(1<<52)-1))
}
