package core

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/f72e338e/supervisord/internal/proto"
)

// A step costs the same with ten workers and with a thousand, and so does what the
// shell does after it: reading the records that were touched, to publish and to
// record them.
//
//	go test ./internal/core -run '^$' -bench Step -benchmem

// crowd is a settled pool of n workers that all hold one requested handle.
func crowd(t testing.TB, n int, options map[string]string) *rig {
	if options == nil {
		options = map[string]string{}
	}
	options["workers"] = fmt.Sprint(n)
	r := &rig{t: t, c: New(1, 1), now: Time(time.Hour)}
	r.step(Configured{Op: 1, Kind: "start", Config: Config{Pools: []PoolSpec{poolSpec("web", options, 1)}}})
	for id := proto.WorkerID(1); id <= proto.WorkerID(n); id++ {
		r.start(id)
		r.hear(id, 2, listen9000)
		if id == 1 {
			r.step(BoundHandle{Handle: 1, Bound: proto.Bound{Address: "127.0.0.1:9000", Backlog: 511}})
		}
		r.hear(id, 0, proto.Ready{})
	}
	r.now = r.now.Add(time.Minute)
	r.step(Tick{})
	if p, _ := r.c.Pool("web"); p.ReadySlots != n {
		t.Fatalf("%d of %d are ready", p.ReadySlots, n)
	}
	return r
}

var listen9000 = proto.Listen{Network: "tcp", Address: "127.0.0.1", Port: 9000}

type rig struct {
	t       testing.TB
	c       *Core
	now     Time
	spawned proto.WorkerID // by the last step
	touched int            // by the last step
	bytes   int            // of the touched records
	publish bool
}

func (r *rig) step(ev Event) {
	for _, a := range r.c.Step(r.now, ev) {
		if s, ok := a.(Spawn); ok {
			r.spawned = s.Worker
		}
	}
	if r.publish {
		r.record()
	}
}

// record is what a shell does after a step: it reads what was touched, and writes it.
func (r *rig) record() {
	r.touched, r.bytes = 0, 0
	for _, ref := range r.c.Touched() {
		r.touched++
		var v any
		switch ref.Kind {
		case RefPool:
			v, _ = r.c.Pool(ref.Pool)
		case RefSlot:
			v, _ = r.c.Slot(ref.Pool, int(ref.ID))
		case RefWorker:
			v, _ = r.c.Worker(proto.WorkerID(ref.ID))
		case RefHandle:
			v, _ = r.c.Handle(proto.HandleID(ref.ID))
		case RefMaster:
			v = r.c.Master()
		default:
			continue
		}
		data, err := json.Marshal(v)
		if err != nil {
			r.t.Fatal(err)
		}
		r.bytes += len(data)
	}
}

func (r *rig) hear(id proto.WorkerID, req uint64, m proto.Message) {
	r.step(Received{Worker: id, Envelope: proto.Envelope{ID: req, Body: m}})
}

func (r *rig) start(id proto.WorkerID) {
	r.step(Spawned{Worker: id, PID: int(id)})
	r.hear(id, 1, proto.Hello{Versions: []int{1}})
}

// scenarios are what happens day and night. Each leaves the crowd as it was; the
// worker that it concerns changes, so that nothing is warm by chance.
var scenarios = []struct {
	name string
	run  func(r *rig, current *proto.WorkerID)
}{
	{"counts", func(r *rig, id *proto.WorkerID) {
		r.hear(*id, 0, proto.Counts{Connections: int64(r.now), Accepted: uint64(r.now)})
	}},
	{"listen, close", func(r *rig, id *proto.WorkerID) {
		r.hear(*id, 0, proto.Close{Handle: 1})
		r.hear(*id, 3, listen9000)
	}},
	{"exit, respawn, ready", func(r *rig, id *proto.WorkerID) {
		r.now = r.now.Add(time.Minute)
		r.step(Exited{Worker: *id, Exit: Exit{Known: true, Signal: "SIGKILL"}})
		*id = r.spawned
		r.start(*id)
		r.hear(*id, 2, listen9000)
		r.hear(*id, 0, proto.Ready{})
	}},
	{"tick without a deadline", func(r *rig, _ *proto.WorkerID) {
		r.now++
		r.step(Tick{})
	}},
}

func BenchmarkStep(b *testing.B) {
	for _, s := range scenarios {
		for _, n := range []int{10, 1000} {
			for _, publish := range []bool{false, true} {
				name := fmt.Sprintf("%s/workers=%d", s.name, n)
				if publish {
					name += "/recorded"
				}
				b.Run(name, func(b *testing.B) {
					r := crowd(b, n, nil)
					r.publish = publish
					id := proto.WorkerID(n/2 + 1)
					b.ReportAllocs()
					for b.Loop() {
						s.run(r, &id)
					}
					if publish {
						b.ReportMetric(float64(r.bytes), "record-B/step")
					}
				})
			}
		}
	}
}

// One replacement of a roll-out: the successor's start, readiness, and the old
// worker's exit.
func BenchmarkRollout(b *testing.B) {
	for _, n := range []int{10, 1000} {
		for _, publish := range []bool{false, true} {
			b.Run(fmt.Sprintf("workers=%d/recorded=%v", n, publish), func(b *testing.B) {
				b.ReportAllocs()
				steps := 0
				for b.Loop() {
					b.StopTimer()
					r := crowd(b, n, map[string]string{"monitor": "0s"})
					r.publish = publish
					r.step(Configured{Op: 2, Kind: "restart", Force: []string{"web"}, Config: Config{Pools: []PoolSpec{poolSpec("web", map[string]string{"workers": fmt.Sprint(n), "monitor": "0s"}, 2)}}})
					b.StartTimer()
					for range n {
						next := r.spawned
						r.start(next)
						r.hear(next, 2, listen9000)
						r.hear(next, 0, proto.Ready{})
						r.step(Exited{Worker: proto.WorkerID(2*n) + 1 - next, Exit: Exit{Known: true}})
						steps++
					}
					if p, _ := r.c.Pool("web"); p.Rollout != nil || p.Live != n {
						b.Fatalf("not done: %+v", p.Rollout)
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(steps), "ns/replacement")
			})
		}
	}
}

// The same as a test, in allocations and touched records, which do not depend on
// the machine: a scan or a copy of all workers shows in one of them.
func TestStepCostsTheSame(t *testing.T) {
	for _, s := range scenarios {
		cost := map[int][3]int{}
		for _, n := range []int{10, 1000} {
			r := crowd(t, n, nil)
			r.publish = true
			id := proto.WorkerID(n/2 + 1)
			s.run(r, &id)
			cost[n] = [3]int{int(testing.AllocsPerRun(100, func() { s.run(r, &id) })), r.touched, r.bytes / 100}
		}
		few, many := cost[10], cost[1000]
		for i, what := range []string{"allocations", "touched records", "hundreds of bytes recorded"} {
			if many[i] > few[i]+few[i]/4+5 { // encoding/json and -race make them differ by some
				t.Errorf("%s: %d %s with 10 workers, %d with 1000", s.name, few[i], what, many[i])
			}
		}
	}
}
