package master

import (
	"fmt"

	"github.com/tidwall/btree"

	"github.com/f72e338e/supervisord/internal/core"
	"github.com/f72e338e/supervisord/internal/proto"
)

// snapshot is the state as readers see it: immutable once published. A step
// copies the few tree nodes on the way to what it changed and shares the rest
// with the one before.
type snapshot struct {
	master  core.Master
	pools   *btree.Map[string, core.Pool] // without slots
	slots   *btree.Map[string, core.Slot] // by slotKey
	workers *btree.Map[proto.WorkerID, core.Worker]
	handles *btree.Map[proto.HandleID, core.Handle]
}

func newSnapshot() *snapshot {
	return &snapshot{pools: new(btree.Map[string, core.Pool]), slots: new(btree.Map[string, core.Slot]),
		workers: new(btree.Map[proto.WorkerID, core.Worker]), handles: new(btree.Map[proto.HandleID, core.Handle])}
}

// slotKey sorts by pool, then index.
func slotKey(pool string, index uint64) string { return fmt.Sprintf("%s/%08d", pool, index) }

// publish makes what the step changed visible to readers.
func (m *Master) publish() {
	refs := m.core.Touched()
	if len(refs) == 0 {
		return
	}
	next := *m.snapshot.Load()
	var copied [5]bool // each tree is copied at its first change: a copy shares all nodes
	for _, r := range refs {
		switch r.Kind {
		case core.RefMaster:
			next.master = m.core.Master()
		case core.RefPool:
			v, ok := m.core.Pool(r.Pool)
			set(&next.pools, &copied[0], r.Pool, v, ok)
		case core.RefSlot:
			v, ok := m.core.Slot(r.Pool, int(r.ID))
			set(&next.slots, &copied[1], slotKey(r.Pool, r.ID), v, ok)
		case core.RefWorker:
			v, ok := m.core.Worker(proto.WorkerID(r.ID))
			set(&next.workers, &copied[2], proto.WorkerID(r.ID), v, ok)
		case core.RefHandle:
			v, ok := m.core.Handle(proto.HandleID(r.ID))
			set(&next.handles, &copied[3], proto.HandleID(r.ID), v, ok)
		}
	}
	m.snapshot.Store(&next)
}

func set[K interface{ ~string | ~uint64 }, V any](tree **btree.Map[K, V], copied *bool, key K, value V, exists bool) {
	if !*copied {
		*tree = (*tree).Copy()
		*copied = true
	}
	if exists {
		(*tree).Set(key, value)
	} else {
		(*tree).Delete(key)
	}
}
