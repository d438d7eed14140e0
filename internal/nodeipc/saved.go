package nodeipc

import (
	"slices"

	"github.com/f72e338e/supervisord/internal/proto"
)

// Saved is what a Worker knows, for the next master. A Node worker says nothing twice:
// what is not here is lost with the master that heard it.
type Saved struct {
	Listeners []string         `json:"listeners,omitempty"`
	Queries   []Query          `json:"queries,omitempty"`
	Online    bool             `json:"online,omitempty"`
	Leaving   bool             `json:"leaving,omitempty"`
	Holds     []proto.HandleID `json:"holds,omitempty"`
}

// Save returns what the Worker knows.
func (w *Worker) Save() Saved {
	return Saved{slices.Clone(w.listeners), slices.Clone(w.queries), w.online, w.leaving, slices.Clone(w.holds)}
}

// Resume goes on with a worker of an earlier master. policy and seq are as for NewWorker.
func Resume(s Saved, policy string, seq int64) *Worker {
	return &Worker{policy: policy, seq: seq, listeners: s.Listeners, queries: s.Queries, online: s.Online, leaving: s.Leaving, holds: s.Holds}
}

// Rejoin says to a new master, after its welcome, what a worker with a link would say
// itself: what it holds, and what it has asked and was not answered.
func (w *Worker) Rejoin(epoch uint64) []proto.Envelope {
	if !w.online {
		return nil
	}
	hello := proto.Hello{Versions: []int{proto.Version}, Client: "node", Features: []string{proto.FeatureHandover}, Epoch: epoch, Holds: slices.Clone(w.holds)}
	if w.leaving {
		hello.State = proto.StateDraining
	}
	list := []proto.Envelope{{Body: hello}}
	w.asked = false
	if e, ok := w.Next(); ok {
		list = append(list, e)
	}
	return list
}
