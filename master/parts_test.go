package master

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/f72e338e/supervisord/fdpass"
	"github.com/f72e338e/supervisord/internal/api"
	"github.com/f72e338e/supervisord/internal/core"
	"github.com/f72e338e/supervisord/internal/proto"
)

// blocked is a file that nobody reads.
type blocked struct{ release chan struct{} }

func (b blocked) Write(p []byte) (int, error) {
	<-b.release
	return len(p), nil
}

func TestSinkNeverBlocks(t *testing.T) {
	b := blocked{make(chan struct{})}
	s := newSink(b)
	for range 3 * sinkQueue {
		_, _ = s.Write([]byte("line\n"))
	}
	if lost := s.lost.Load(); lost < sinkQueue {
		t.Errorf("%d lines lost, of %d written to a file that blocks", lost, 3*sinkQueue)
	}
	close(b.release)
	s.close()
}

func TestTails(t *testing.T) {
	tails := newTails()
	for i := range 50 {
		tails.add(1, fmt.Sprint("line ", i))
	}
	if got := tails.of(1); len(got) != tailLines || got[tailLines-1] != "line 49" || got[0] != "line 30" {
		t.Errorf("kept %d lines, from %q", len(got), got[0])
	}
	tails.add(1, strings.Repeat("x", 10000))
	if got := tails.of(1); len(got[tailLines-1]) > tailLine+10 {
		t.Errorf("kept a line of %d bytes", len(got[tailLines-1]))
	}
	for i := range 3 * tailWorkers {
		id := proto.WorkerID(i + 2)
		tails.add(id, "x")
		tails.end(id)
	}
	if n := len(tails.lines); n > tailWorkers+1 {
		t.Errorf("keeps lines of %d workers", n)
	}
	if tails.of(1) == nil {
		t.Error("lost the lines of a worker that lives")
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"plain\ttext é": "plain\ttext é", "\x1b[2Jx": `\x1b[2Jx`, "a\rb": `a\rb`, "\u009b31m": `\u009b31m`,
	} {
		if got := printable(in); got != want {
			t.Errorf("printable(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestEventRing(t *testing.T) {
	r := newEventRing(4)
	_, wake := r.since(0)
	for range 10 {
		r.add(&api.Event{})
	}
	<-wake
	events, _ := r.since(0)
	if len(events) != 4 || events[0].ID != 7 || events[3].ID != 10 {
		t.Errorf("after 10 events a ring of 4 has %d, from id %d", len(events), events[0].ID)
	}
	if events, _ := r.since(9); len(events) != 1 || events[0].ID != 10 {
		t.Errorf("since(9) = %v", events)
	}
	if r.last() != 10 {
		t.Errorf("last() = %d", r.last())
	}
}

// A worker that talks does not push out what was done about it.
func TestEventRingKeepsWhatMatters(t *testing.T) {
	r := newEventRing(8)
	for i := range 100 {
		level := "debug"
		if i%25 == 0 {
			level = "warn"
		}
		r.add(&api.Event{Level: level})
	}
	var ids []uint64
	events, _ := r.since(0)
	for _, e := range events {
		ids = append(ids, e.ID)
	}
	if want := []uint64{1, 26, 51, 76, 97, 98, 99, 100}; !slices.Equal(ids, want) {
		t.Errorf("kept %v, want %v", ids, want)
	}
	for range 20 {
		r.add(&api.Event{Level: "info"})
	}
	if events, _ := r.since(0); len(events) != 8 || events[0].ID != 113 || r.debug != 0 {
		t.Errorf("then kept %+v, of level debug %d", events, r.debug)
	}
}

func TestBucket(t *testing.T) {
	done := make(chan struct{})
	close(done) // take does not wait, and says by its tokens that it would have
	b := newBucket(10, 1000)
	for range 10 {
		b.take(done)
	}
	if b.tokens < 0 {
		t.Errorf("the burst was not granted: %v tokens", b.tokens)
	}
	for range 1000 {
		b.take(done)
	}
	if b.tokens > -900 {
		t.Errorf("after 1000 messages more at once: %v tokens", b.tokens)
	}
	b.last = b.last.Add(-2 * time.Second)
	b.take(done)
	if b.tokens < 0 {
		t.Errorf("two seconds later: %v tokens", b.tokens)
	}
	b.spend(1e6, done)
	if b.tokens > -990_000 {
		t.Errorf("after one that costs a million: %v tokens", b.tokens)
	}
}

// TestLinkNeverBlocks: a worker that does not read fills the kernel's buffer, then
// the queue; then it is unresponsive. The sender never waits, and every
// descriptor that was queued is closed in the end.
func TestLinkNeverBlocks(t *testing.T) {
	m := newMaster(t, "")
	defer m.abandon()
	near, far, err := fdpass.Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = far.Close() }()
	file, other, err := fdpass.Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	granted, err := file.Detach()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = granted.Close() }()
	before := openFiles(t)
	l := newWorkerLink(m, 1, near)
	n := 0
	for ; n < 100000; n++ {
		if err = l.send([]byte(`{"type":"ping"}`), granted); err != nil {
			break
		}
	}
	if err != errQueueFull {
		t.Fatalf("after %d messages: %v, want %v", n, err, errQueueFull)
	}
	buf := make([]byte, 100)
	for range 5 { // what was sent first arrives first and whole
		_, files, err := far.Recv(buf, 1)
		if err != nil || len(files) != 1 {
			t.Fatalf("received %d files: %v", len(files), err)
		}
		fdpass.CloseAll(files)
	}
	l.close()
	m.pumps.Wait()
	_ = far.Close()
	if after := openFiles(t); after > before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

// TestSnapshot: what readers see equals what the core knows, after every step.
func TestSnapshot(t *testing.T) {
	m := newMaster(t, "")
	defer m.abandon()
	spec := core.PoolSpec{Name: "web", Desired: 3, Fingerprint: "a", Launch: 1, Protocol: core.ProtocolNative, Ready: core.ReadyNotify,
		Timeouts: core.Timeouts{Start: time.Minute, Graceful: time.Minute, Kill: time.Minute}, Restart: core.RestartPolicy{Policy: "always", Window: time.Minute},
		Rollout: core.RolloutPolicy{MaxSurge: 1}}
	clock := core.Time(time.Hour)
	old := m.snapshot.Load()
	step := func(ev core.Event) {
		t.Helper()
		clock++
		m.core.Step(clock, ev)
		m.publish()
		equalsCore(t, m)
	}
	step(core.Configured{Op: 1, Kind: "start", Config: core.Config{Pools: []core.PoolSpec{spec}}})
	for id := proto.WorkerID(1); id <= 3; id++ {
		step(core.Spawned{Worker: id, PID: int(id)})
		for _, body := range []proto.Message{proto.Hello{Versions: []int{1}}, proto.Ready{}, proto.Counts{Connections: int64(id)}} {
			step(core.Received{Worker: id, Envelope: proto.Envelope{Body: body}})
		}
	}
	middle := m.snapshot.Load()
	step(core.Exited{Worker: 2})
	step(core.ScaleAsked{Op: 2, Pool: "web", N: 1})
	step(core.StopAsked{Op: 3})
	if old.workers.Len() != 0 || middle.workers.Len() != 3 {
		t.Errorf("published snapshots changed: %d and %d workers, want 0 and 3", old.workers.Len(), middle.workers.Len())
	}
}

func equalsCore(t *testing.T, m *Master) {
	t.Helper()
	s, state := m.snapshot.Load(), m.core.State()
	if s.workers.Len() != len(state.Workers) || s.pools.Len() != len(state.Pools) || s.handles.Len() != len(state.Handles) {
		t.Fatalf("snapshot has %d workers, %d pools, %d handles; the core %d, %d, %d", s.workers.Len(), s.pools.Len(), s.handles.Len(),
			len(state.Workers), len(state.Pools), len(state.Handles))
	}
	for _, w := range state.Workers {
		got, _ := s.workers.Get(w.ID)
		if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", w) && (got.Connected == nil) != (w.Connected == nil) {
			t.Fatalf("worker %d is %+v in the snapshot, %+v in the core", w.ID, got, w)
		}
		if got.State != w.State || got.Attached != w.Attached || got.PID != w.PID {
			t.Fatalf("worker %d is %+v in the snapshot, %+v in the core", w.ID, got, w)
		}
	}
	slots := 0
	for _, p := range state.Pools {
		for _, sl := range p.Slots {
			slots++
			got, ok := s.slots.Get(slotKey(p.Name, uint64(sl.Index)))
			if !ok || got.Current != sl.Current || got.Next != sl.Next || got.Serving != sl.Serving || got.RetryAt != sl.RetryAt {
				t.Fatalf("slot %s/%d is %+v in the snapshot, %+v in the core", p.Name, sl.Index, got, sl)
			}
		}
		got, _ := s.pools.Get(p.Name)
		if got.Gen != p.Gen || got.ReadySlots != p.ReadySlots || got.Desired != p.Desired || got.Live != p.Live {
			t.Fatalf("pool %s is %+v in the snapshot, %+v in the core", p.Name, got, p)
		}
	}
	if s.slots.Len() != slots {
		t.Fatalf("snapshot has %d slots, the core %d", s.slots.Len(), slots)
	}
}
