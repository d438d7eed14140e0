package core

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/f72e338e/supervisord/internal/proto"
)

const bindFailure = "in use"

// mortal is a master that may be killed between any two of its deeds: after it
// read a message, after its record was written, after any of the step's actions.
type mortal struct {
	t       *rapid.T
	c       *Core
	now     Time
	record  []byte
	peers   map[proto.WorkerID]*peer
	forked  []proto.WorkerID // Spawned is not delivered yet
	binding []proto.HandleID
	kills   int // left
}

func (m *mortal) dies() bool {
	if m.kills == 0 || rapid.IntRange(0, 7).Draw(m.t, "dies") != 0 {
		return false
	}
	m.kills--
	return true
}

func (m *mortal) step(ev Event) {
	actions := m.c.Step(m.now, ev)
	if m.dies() {
		m.next()
		return
	}
	m.record, _ = json.Marshal(m.c.State())
	for _, a := range actions {
		if m.dies() {
			m.next()
			return
		}
		switch a := a.(type) {
		case Spawn:
			m.peers[a.Worker] = &peer{id: a.Worker, pending: map[uint64]proto.Message{}, holds: map[proto.HandleID]int{}, answers: map[uint64]int{}}
			m.peers[a.Worker].hello()
			m.forked = append(m.forked, a.Worker)
		case Send:
			if p := m.peers[a.Worker]; p != nil {
				p.down = append(p.down, a.Envelope)
			}
		case Bind:
			m.binding = append(m.binding, a.Handle)
		}
	}
}

// next is the next master: it has the record, the links and the processes.
func (m *mortal) next() {
	var s State
	if err := json.Unmarshal(m.record, &s); err != nil {
		m.t.Fatal(err)
	}
	c, err := Restore(s)
	if err != nil {
		m.t.Fatal(err)
	}
	m.c, m.binding, m.forked = c, nil, nil
	epoch := c.Master().Epoch
	m.step(TookOver{Epoch: epoch + 1})
	if m.c.Master().Epoch == epoch { // died before it was written down
		return
	}
	for _, w := range m.c.State().Workers {
		if w.State == Forking && m.peers[w.ID] == nil && rapid.Bool().Draw(m.t, "given up") {
			m.step(SpawnFailed{Worker: w.ID, Cause: "the master died"})
		} else if w.State == Forking && m.peers[w.ID] == nil || w.State == Starting && rapid.Bool().Draw(m.t, "lost") {
			delete(m.peers, w.ID)
			m.step(StartLost{Worker: w.ID})
		} else if w.State == Forking {
			m.step(Spawned{Worker: w.ID, PID: int(w.ID)})
		}
	}
}

func (m *mortal) act() {
	ids := slices.Sorted(maps.Keys(m.peers))
	if len(ids) == 0 { // lost with a master, and not started again yet
		m.bind()
		return
	}
	p := m.peers[ids[rapid.IntRange(0, len(ids)-1).Draw(m.t, "peer")]]
	switch rapid.IntRange(0, 9).Draw(m.t, "act") {
	case 0, 1, 2:
		m.hear(p)
	case 3, 4:
		if len(p.down) > 0 {
			p.read()
		}
	case 5:
		if p.greeted && !p.draining {
			if port := 9000 + rapid.IntRange(0, 2).Draw(m.t, "port"); !p.asked(port) {
				p.ask(proto.Listen{Network: "tcp", Address: "127.0.0.1", Port: port})
			}
		}
	case 6:
		for _, h := range slices.Sorted(maps.Keys(p.holds)) {
			delete(p.holds, h)
			p.say(proto.Close{Handle: h}, false)
			break
		}
	case 7:
		if p.greeted {
			p.ask(proto.Connections{})
		}
	case 8:
		m.bind()
	case 9:
		if p.greeted && !p.ready {
			p.ready = true
			p.say(proto.Ready{}, false)
		}
		m.now = m.now.Add(200 * time.Millisecond)
		m.step(Tick{})
	}
}

func (m *mortal) hear(p *peer) {
	if w, ok := m.c.Worker(p.id); len(p.up) == 0 || ok && w.State == Forking {
		return
	}
	e := p.up[0]
	p.up = p.up[1:]
	m.step(Received{Worker: p.id, Envelope: e})
}

func (m *mortal) bind() {
	for i := 0; len(m.forked) > 0; i++ {
		id := m.forked[0]
		m.forked = m.forked[1:]
		m.step(Spawned{Worker: id, PID: int(id)})
	}
	if len(m.binding) > 0 {
		h := m.binding[0]
		m.binding = m.binding[1:]
		if rapid.IntRange(0, 4).Draw(m.t, "bind") == 0 {
			m.step(BindFailed{Handle: h, Error: proto.Error{Code: "EADDRINUSE", Errno: 98, Message: bindFailure}})
		} else {
			m.step(BoundHandle{Handle: h, Bound: proto.Bound{Address: fmt.Sprint("bound:", h), Backlog: 5}})
		}
	}
}

// settle lets everything be read until nothing is left to read.
func (m *mortal) settle() {
	m.kills = 0
	for range 1000 {
		m.bind()
		busy := len(m.binding)+len(m.forked) > 0
		for _, id := range slices.Sorted(maps.Keys(m.peers)) {
			p := m.peers[id]
			m.hear(p)
			if len(p.down) > 0 {
				p.read()
			}
			busy = busy || len(p.up)+len(p.down) > 0
		}
		if !busy {
			return
		}
	}
	m.t.Fatal("the talk does not come to an end")
}

// Whenever a master is killed, the next one and the workers agree in the end: each
// request was answered exactly once, and the workers hold what the master thinks.
func TestTakeover(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := &mortal{t: rt, c: New(1, 1), now: Time(time.Hour), peers: map[proto.WorkerID]*peer{}}
		m.step(Configured{Op: 1, Kind: "start", Config: Config{Pools: []PoolSpec{poolSpec("web", map[string]string{"workers": "2"}, 1)}}})
		m.kills = 3
		for range rapid.IntRange(1, 100).Draw(rt, "steps") {
			m.act()
		}
		m.settle()
		m.now = m.now.Add(2 * time.Second) // answers what waits for counts
		m.step(Tick{})
		m.settle()
		for id, p := range m.peers {
			w, ok := m.c.Worker(id)
			if !ok || w.Rejoining {
				rt.Fatalf("worker %d: known %v, rejoining %v", id, ok, w.Rejoining)
			}
			if len(p.pending) > 0 {
				rt.Fatalf("worker %d: unanswered %v", id, p.pending)
			}
			for _, text := range p.refused {
				if text != bindFailure {
					rt.Fatalf("worker %d was refused: %s", id, text)
				}
			}
			for req, n := range p.answers {
				if n != 1 {
					rt.Fatalf("worker %d: request %d was answered %d times", id, req, n)
				}
			}
			slices.Sort(w.Holds)
			if held := slices.Sorted(maps.Keys(p.holds)); !slices.Equal(w.Holds, held) {
				rt.Fatalf("worker %d holds %v, the master thinks %v", id, held, w.Holds)
			}
			if p.ready && w.State != Ready {
				rt.Fatalf("worker %d is ready, the master thinks %s", id, w.State)
			}
		}
		checkCounters(rt, m.c)
	})
}
