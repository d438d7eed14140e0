package core

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/f72e338e/supervisord/internal/proto"
)

// A State is kept in pieces by whoever is to survive this process, one for each Ref,
// so that a step costs what it changed and not what there is.

// slotPiece is a slot, which does not say itself whose it is.
type slotPiece struct {
	Pool string `json:"pool"`
	Slot
}

// masterPiece carries the version of all pieces.
type masterPiece struct {
	Version int `json:"version"`
	Master
}

// changePiece is what is being applied, and what waits for that.
type changePiece struct {
	Change  *Change  `json:"change,omitempty"`
	Waiting []Change `json:"waiting,omitempty"`
}

// Name is what a piece is called: "worker/7", "slot/web/0".
func (r Ref) Name() string {
	switch r.Kind {
	case RefPool:
		return "pool/" + r.Pool
	case RefSlot:
		return fmt.Sprintf("slot/%s/%d", r.Pool, r.ID)
	case RefWorker:
		return fmt.Sprintf("worker/%d", r.ID)
	case RefHandle:
		return fmt.Sprintf("handle/%d", r.ID)
	case RefGather:
		return fmt.Sprintf("gather/%d", r.ID)
	case RefOperation:
		return fmt.Sprintf("operation/%d", r.ID)
	case RefChange:
		return "change"
	}
	return "master"
}

// Piece returns the record that a Ref names, for json.Marshal; nil when there is none
// any more. It is not to be kept over a step.
func (c *Core) Piece(r Ref) any {
	switch r.Kind {
	case RefPool:
		if p := c.pools[r.Pool]; p != nil {
			q := *p
			q.Slots = nil
			return q
		}
	case RefSlot:
		if p := c.pools[r.Pool]; p != nil && int(r.ID) < len(p.Slots) {
			return slotPiece{r.Pool, p.Slots[r.ID]}
		}
	case RefWorker:
		if w := c.workers[proto.WorkerID(r.ID)]; w != nil {
			return w
		}
	case RefHandle:
		if h := c.handles[proto.HandleID(r.ID)]; h != nil {
			return h
		}
	case RefGather:
		if g := c.gathers[r.ID]; g != nil {
			return g
		}
	case RefOperation:
		if o := c.ops[OpID(r.ID)]; o != nil {
			return o
		}
	case RefChange:
		if c.change != nil || len(c.waiting) > 0 {
			return changePiece{c.change, c.waiting}
		}
	case RefMaster:
		return masterPiece{StateVersion, c.m}
	}
	return nil
}

// Assemble makes a State of all its pieces, by name; others it does not look at.
// Errors: a piece that is malformed, or none of the master.
func Assemble(pieces map[string][]byte) (State, error) {
	var s State
	var slots []slotPiece
	found := false
	for _, name := range slices.Sorted(maps.Keys(pieces)) {
		var err error
		data := pieces[name]
		switch kind, _, _ := strings.Cut(name, "/"); kind {
		case "master":
			var p masterPiece
			err = json.Unmarshal(data, &p)
			s.Version, s.Master, found = p.Version, p.Master, true
		case "change":
			var p changePiece
			err = json.Unmarshal(data, &p)
			s.Change, s.Waiting = p.Change, p.Waiting
		case "pool":
			err = unmarshal(&s.Pools, data)
		case "slot":
			err = unmarshal(&slots, data)
		case "worker":
			err = unmarshal(&s.Workers, data)
		case "handle":
			err = unmarshal(&s.Handles, data)
		case "gather":
			err = unmarshal(&s.Gathers, data)
		case "operation":
			err = unmarshal(&s.Operations, data)
		}
		if err != nil {
			return State{}, fmt.Errorf("%s: %w", name, err)
		}
	}
	if !found {
		return State{}, fmt.Errorf("no piece is the master's")
	}
	slices.SortFunc(slots, func(a, b slotPiece) int { return cmp.Or(cmp.Compare(a.Pool, b.Pool), cmp.Compare(a.Index, b.Index)) })
	for _, p := range slots {
		i := slices.IndexFunc(s.Pools, func(q Pool) bool { return q.Name == p.Pool })
		if i < 0 || p.Index != len(s.Pools[i].Slots) {
			return State{}, fmt.Errorf("slot %s/%d has no place", p.Pool, p.Index)
		}
		s.Pools[i].Slots = append(s.Pools[i].Slots, p.Slot)
	}
	slices.SortFunc(s.Pools, func(a, b Pool) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(s.Workers, func(a, b Worker) int { return cmp.Compare(a.ID, b.ID) })
	slices.SortFunc(s.Handles, func(a, b Handle) int { return cmp.Compare(a.ID, b.ID) })
	slices.SortFunc(s.Gathers, func(a, b Gather) int { return cmp.Compare(a.ID, b.ID) })
	slices.SortFunc(s.Operations, func(a, b Operation) int { return cmp.Compare(a.ID, b.ID) })
	return s, nil
}

func unmarshal[T any](list *[]T, data []byte) error {
	var v T
	if err := json.Unmarshal(data, &v); err != nil {
		return err
	}
	*list = append(*list, v)
	return nil
}
