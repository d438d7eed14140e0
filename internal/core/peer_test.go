package core

import (
	"maps"
	"slices"

	"github.com/f72e338e/supervisord/internal/proto"
)

// peer is a worker that keeps to docs/protocol.md. Both directions of its link
// outlive the master, in order and with what nobody has read.
type peer struct {
	id       proto.WorkerID
	up, down []proto.Envelope // to the master, to the worker
	last     uint64
	epoch    uint64
	greeted  bool
	ready    bool
	draining bool
	pending  map[uint64]proto.Message
	holds    map[proto.HandleID]int // and the port it asked for
	answers  map[uint64]int
	refused  []string
}

func (p *peer) say(m proto.Message, request bool) {
	e := proto.Envelope{Body: m}
	if request {
		p.last++
		e.ID = p.last
	}
	p.up = append(p.up, e)
}

func (p *peer) ask(m proto.Message) {
	p.say(m, true)
	p.pending[p.last] = m
}

// asked reports whether the worker has the port already, or is about to.
func (p *peer) asked(port int) bool {
	for _, m := range p.pending {
		if l, ok := m.(proto.Listen); ok && l.Port == port {
			return true
		}
	}
	return slices.Contains(slices.Collect(maps.Values(p.holds)), port)
}

func (p *peer) hello() {
	m := proto.Hello{Versions: []int{1}, Epoch: p.epoch, State: proto.StateStarting, Holds: slices.Sorted(maps.Keys(p.holds)), Counts: &proto.Counts{}}
	switch {
	case p.draining:
		m.State = proto.StateDraining
	case p.ready:
		m.State = proto.StateReady
	}
	p.say(m, true)
}

// read takes one message of the master.
func (p *peer) read() {
	e := p.down[0]
	p.down = p.down[1:]
	if e.Re != 0 {
		p.answers[e.Re]++
		defer delete(p.pending, e.Re)
	}
	switch m := e.Body.(type) {
	case proto.Welcome:
		again := m.Epoch != p.epoch
		p.epoch, p.greeted = m.Epoch, true
		if !again || e.Re == p.last && e.Re != 0 {
			return
		}
		p.hello()
		for _, id := range slices.Sorted(maps.Keys(p.pending)) {
			p.up = append(p.up, proto.Envelope{ID: id, Body: p.pending[id]})
		}
		switch {
		case p.draining:
			p.say(proto.Draining{}, false)
		case p.ready:
			p.say(proto.Ready{}, false)
		}
	case proto.Grant:
		if p.pending[e.Re] == nil {
			if p.holds[m.Handle] == 0 {
				p.say(proto.Close{Handle: m.Handle}, false)
			}
			return
		}
		p.holds[m.Handle] = p.pending[e.Re].(proto.Listen).Port
	case proto.Error:
		p.refused = append(p.refused, m.Message)
	case proto.Count:
		p.up = append(p.up, proto.Envelope{Re: e.ID, Body: proto.Counts{}})
	case proto.Drain:
		p.draining = true
		p.say(proto.Draining{}, false)
	}
}
