package core

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/f72e338e/supervisord/internal/proto"
)

// world is a shell that does what a core asks in any order and at any time, with
// workers that behave as badly as workers can. next(n) chooses below n.
type world struct {
	d       *driver
	next    func(n int) int
	alive   []proto.WorkerID // processes that exist, or are being forked
	forking map[proto.WorkerID]bool
	binding []proto.HandleID
	mending []proto.HandleID
	req     uint64
	log     []string
}

func newWorld(t testing.TB, next func(int) int) *world {
	return &world{d: newDriver(t), next: next, forking: map[proto.WorkerID]bool{}}
}

func (w *world) step(ev Event) {
	w.log = append(w.log, fmt.Sprintf("%T%+v", ev, ev))
	actions := w.d.c.Step(w.d.now, ev)
	w.d.inv.after(w.d.t, w.d.c, ev, actions)
	w.d.noted()
	for _, a := range actions {
		switch a := a.(type) {
		case Spawn:
			w.alive = append(w.alive, a.Worker)
			w.forking[a.Worker] = true
		case Bind:
			w.binding = append(w.binding, a.Handle)
		case Mend:
			w.mending = append(w.mending, a.Handle)
		case Terminate:
			w.signalled(a.Worker)
		case Kill:
			w.signalled(a.Worker)
		}
	}
}

func (w *world) signalled(id proto.WorkerID) {
	if !slices.Contains(w.alive, id) || w.forking[id] {
		w.d.t.Fatalf("worker %d was sent a signal and has no process", id)
	}
}

func (w *world) config() Config {
	cfg := Config{}
	names := []string{}
	for i := range w.next(3) {
		name := fmt.Sprintf("l%d", i)
		names = append(names, name)
		cfg.Listeners = append(cfg.Listeners, Listener{Name: name, Policy: proto.Policies[w.next(len(proto.Policies))], Spec: proto.SocketSpec{Network: "tcp", Port: 7000 + i*(1+w.next(2)), Backlog: 10 * w.next(3)}})
	}
	for i := range 1 + w.next(2) {
		args := map[string]string{
			"workers": fmt.Sprint(w.next(4)), "is": fmt.Sprint(w.next(3)), "surge": fmt.Sprint(w.next(3)), "unavailable": fmt.Sprint(1 + w.next(2)),
			"monitor": []string{"0s", "3s"}[w.next(2)], "on_failure": []string{"rollback", "halt"}[w.next(2)], "restart": []string{"always", "on-failure", "never"}[w.next(3)],
			"on_limit": []string{LimitSlow, LimitStop, LimitSlow, LimitExit}[w.next(4)], "max_restarts": fmt.Sprint(w.next(4)), "drain": []string{"0s", "1s"}[w.next(2)],
			"ready": []string{ReadyNotify, ReadyListening}[w.next(2)], "listeners": strings.Join(names, ","), "max_generations": fmt.Sprint(w.next(4)),
		}
		w.d.ops++
		cfg.Pools = append(cfg.Pools, poolSpec(fmt.Sprintf("p%d", i), args, uint64(w.d.ops)))
	}
	return cfg
}

func (w *world) act() {
	d := w.d
	if d.inv.quit {
		return
	}
	switch k := w.next(20); {
	case k == 0:
		cfg := w.config()
		d.ops++
		var force []string
		if w.next(2) == 0 {
			force = []string{"p0"}
		}
		w.step(Configured{Op: d.ops, Kind: "reload", Config: cfg, Force: force})
	case k == 1:
		d.ops++
		w.step(ScaleAsked{Op: d.ops, Pool: fmt.Sprintf("p%d", w.next(2)), N: w.next(5) - 1})
	case k == 2 && w.next(10) == 0:
		d.ops++
		w.step(StopAsked{Op: d.ops, Fast: w.next(2) == 0})
	case k == 3:
		d.ops++
		w.step(CountsAsked{Op: d.ops})
	case k == 4:
		d.roundTrip()
		if w.next(4) == 0 {
			w.binding, w.mending = nil, nil // all that still matter are asked for again
			w.step(TookOver{})
		}
	case k < 7:
		d.now = d.now.Add(time.Duration(w.next(8000)) * time.Millisecond)
		w.step(Tick{})
	case k < 9 && len(w.binding) > 0:
		i := w.next(len(w.binding))
		h := w.binding[i]
		w.binding = slices.Delete(w.binding, i, i+1)
		if w.next(3) == 0 {
			w.step(BindFailed{Handle: h, Error: proto.Error{Code: "EADDRINUSE", Errno: 98, Message: "no"}})
		} else {
			w.step(BoundHandle{Handle: h, Bound: proto.Bound{Address: "x:1", Backlog: 5}})
		}
	case k == 9:
		w.step(Sabotaged{Handle: proto.HandleID(w.next(5)), Shut: w.next(2) == 0, Blocking: w.next(4) == 0, Since: Time(w.next(2)), What: "harmed"})
	case k == 10 && len(w.mending) > 0:
		h := w.mending[0]
		w.mending = w.mending[1:]
		w.step(Mended{Handle: h, Anew: w.next(2) == 0, Cause: []string{"", "", "no"}[w.next(3)]})
	case len(w.alive) > 0:
		w.workerActs(w.alive[w.next(len(w.alive))])
	}
}

func (w *world) workerActs(id proto.WorkerID) {
	gone := func() { w.alive = slices.DeleteFunc(w.alive, func(x proto.WorkerID) bool { return x == id }) }
	if w.forking[id] {
		delete(w.forking, id)
		if w.next(8) == 0 {
			gone()
			w.step(SpawnFailed{Worker: id, Cause: "no"})
		} else {
			w.step(Spawned{Worker: id, PID: int(id)})
		}
		return
	}
	w.req++
	say := func(m proto.Message) {
		e := proto.Envelope{Body: m}
		switch m.(type) {
		case proto.Hello, proto.Listen, proto.Connections:
			e.ID = w.req
		}
		w.step(Received{Worker: id, Envelope: e})
	}
	switch w.next(14) {
	case 0:
		gone()
		w.step(Exited{Worker: id, Exit: Exit{Known: true, Code: w.next(2)}})
	case 1:
		w.step(LinkClosed{id})
	case 2:
		if w.next(4) == 0 {
			w.step(LinkBroken{Worker: id, Cause: "does not read its link"})
		}
	case 3, 4:
		say(proto.Hello{Versions: []int{1}, Epoch: w.d.c.Master().Epoch - uint64(w.next(2)), State: []string{"", "ready", "draining"}[w.next(3)], Holds: []proto.HandleID{proto.HandleID(w.next(4))},
			Features: []string{proto.FeatureMembers, proto.FeatureHandover, proto.FeatureLook}[:w.next(4)]})
	case 5, 6, 7:
		say(proto.Ready{})
	case 8:
		say(proto.Listen{Network: "tcp", Port: []int{0, 7000, 9000, 80}[w.next(4)], Exclusive: w.next(3) == 0, Backlog: w.next(3)})
	case 9:
		say(proto.Listen{Name: fmt.Sprintf("l%d", w.next(3))})
	case 10:
		say(proto.Close{Handle: proto.HandleID(w.next(8))})
	case 11:
		say(proto.Connections{})
	case 12:
		wk, _ := w.d.c.Worker(id)
		w.step(Received{Worker: id, Envelope: proto.Envelope{Re: wk.Asked, Body: proto.Counts{Connections: int64(w.next(9)) - 2}}})
	case 13:
		if w.next(3) == 0 {
			say(proto.Draining{Reason: "mine"})
		}
	}
}

// finish stops everything and lets the time pass: the master must come to its end.
func (w *world) finish() {
	d := w.d
	d.ops++
	w.step(StopAsked{Op: d.ops})
	for range 200 {
		if d.inv.quit {
			break
		}
		for _, h := range w.binding {
			w.step(BoundHandle{Handle: h})
		}
		w.binding = nil
		for _, id := range slices.Clone(w.alive) {
			delete(w.forking, id)
			w.alive = slices.DeleteFunc(w.alive, func(x proto.WorkerID) bool { return x == id })
			w.step(Exited{Worker: id, Exit: Exit{Known: true}})
		}
		d.now = d.now.Add(time.Minute)
		w.step(Tick{})
	}
	if !d.inv.quit || len(d.inv.ops) > 0 {
		d.t.Fatalf("stopped, and did not come to an end: quit %v, %d operations unanswered", d.inv.quit, len(d.inv.ops))
	}
}

func TestChaos(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(t, func(n int) int { return rapid.IntRange(0, n-1).Draw(rt, "n") })
		w.d.t = failer{t, rt, w}
		w.step(Configured{Op: 1000, Kind: "start", Config: w.config()})
		w.d.ops = 1000
		for range rapid.IntRange(1, 120).Draw(rt, "steps") {
			w.act()
		}
		if !w.d.inv.quit {
			w.finish()
		}
	})
}

func FuzzStep(f *testing.F) {
	f.Add([]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20})
	f.Fuzz(func(t *testing.T, data []byte) {
		w := newWorld(t, nil)
		w.next = func(n int) int {
			if len(data) == 0 {
				return 0
			}
			b := int(data[0])
			data = data[1:]
			return b % n
		}
		w.step(Configured{Op: 1000, Kind: "start", Config: w.config()})
		w.d.ops = 1000
		for len(data) > 0 && !w.d.inv.quit {
			w.act()
		}
		if !w.d.inv.quit {
			w.finish()
		}
	})
}

// failer makes a failed invariant fail the property, with the history that led to it.
type failer struct {
	testing.TB
	rt *rapid.T
	w  *world
}

func (f failer) Fatalf(format string, args ...any) {
	n := max(0, len(f.w.log)-25)
	f.rt.Fatalf("%s\n%s", fmt.Sprintf(format, args...), strings.Join(f.w.log[n:], "\n"))
}

func (f failer) Fatal(args ...any) { f.rt.Fatal(args...) }
func (f failer) Helper()           {}
