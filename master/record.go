package master

import (
	"encoding/json"
	"maps"
	"strconv"

	"github.com/f72e338e/supervisord/config"
	"github.com/f72e338e/supervisord/internal/core"
	"github.com/f72e338e/supervisord/internal/proto"
)

// The record is what the next master is to know, in a table that outlives this one
// (package record): the core's state in pieces, and what of the shell's cannot be found
// out from the files that are kept. It is written after each step of the core and before
// the step's actions are carried out, so that nothing was done which it does not know.

// daemonPiece is the master as a whole.
type daemonPiece struct {
	Tag        uint64            `json:"tag"`
	NotifyDir  string            `json:"notify_dir,omitempty"`
	Recoveries int               `json:"recoveries,omitempty"`
	Upgrades   int               `json:"upgrades,omitempty"`
	File       string            `json:"file,omitempty"` // the configuration's
	Config     core.Config       `json:"config"`         // in force
	Supervisor config.Supervisor `json:"supervisor"`
	Control    config.Control    `json:"control"`
	Applied    bool              `json:"applied,omitempty"`
}

// socketPiece is what the shell knows of a handle.
type socketPiece struct {
	Dispatched bool            `json:"dispatched,omitempty"`
	Passes     bool            `json:"passes,omitempty"`
	Grouped    bool            `json:"grouped,omitempty"`
	Blocking   bool            `json:"blocking,omitempty"` // see unblock
	TLS        json.RawMessage `json:"tls,omitempty"`
}

// memberPiece says which member a worker has of a handle.
type memberPiece struct {
	Handle proto.HandleID `json:"handle"`
	Worker proto.WorkerID `json:"worker"`
	Member int            `json:"member"`
}

const daemonKey = "daemon"

func socketKey(id proto.HandleID) string { return "socket/" + strconv.FormatUint(uint64(id), 10) }
func launchKey(id uint64) string         { return "launch/" + strconv.FormatUint(id, 10) }
func nodeKey(id proto.WorkerID) string   { return "node/" + strconv.FormatUint(uint64(id), 10) }
func memberKey(h proto.HandleID, w proto.WorkerID) string {
	return "member/" + strconv.FormatUint(uint64(h), 10) + "/" + strconv.FormatUint(uint64(w), 10)
}

// note changes an entry of the record; nil removes it. It is called in the loop, and
// written with the next step, or with whatever ends the loop's turn.
func (m *Master) note(key string, v any) {
	if v == nil {
		m.notes[key] = nil
		return
	}
	data, err := json.Marshal(v)
	if err != nil {
		m.log.Error("not recorded", "name", key, "err", err)
		return
	}
	m.notes[key] = data
}

// noteStep notes what the last step of the core has changed.
func (m *Master) noteStep() {
	for _, ref := range m.core.Touched() {
		m.note(ref.Name(), m.core.Piece(ref))
	}
}

// write writes what was noted.
func (m *Master) write() {
	if len(m.notes) == 0 {
		return
	}
	err := m.table.Write(maps.Clone(m.notes))
	clear(m.notes)
	switch {
	case err != nil && !m.unwritten:
		m.log.Error("the record of the state is not written: a master that takes over would know less", "err", err)
	case err == nil && m.unwritten:
		m.log.Info("the record of the state is written again")
	}
	m.unwritten = err != nil
}

// noteDaemon notes the master as a whole.
func (m *Master) noteDaemon() {
	m.note(daemonKey, daemonPiece{Tag: m.tag, NotifyDir: m.notifyDir, Recoveries: m.recoveries, Upgrades: m.upgrades, File: m.file,
		Config: m.current, Applied: m.applied, Supervisor: m.opts.Config.Supervisor, Control: m.opts.Config.Control})
}

func (m *Master) noteSocket(id proto.HandleID) {
	entry := m.sockets[id]
	if entry == nil {
		m.note(socketKey(id), nil)
		return
	}
	m.note(socketKey(id), socketPiece{Dispatched: entry.dispatched, Passes: entry.passes, Grouped: entry.group != nil,
		Blocking: entry.bound.Blocking, TLS: entry.tls})
}

// noteLaunches notes how the workers of a configuration are started, before the core
// knows of it.
func (m *Master) noteLaunches(ev core.Event) {
	c, ok := ev.(core.Configured)
	if !ok {
		return
	}
	for _, p := range c.Config.Pools {
		r := m.launches.get(p.Launch)
		if r == nil || m.noted[p.Launch] {
			continue
		}
		m.noted[p.Launch] = true
		m.note(launchKey(p.Launch), r.piece())
		if r.exe != nil {
			m.store.put(programName(p.Launch), lendFile(r.exe))
		}
		if r.dir != nil {
			m.store.put(directoryName(p.Launch), lendFile(r.dir))
		}
	}
}

func (m *Master) forgetLaunch(id uint64) {
	if m.noted[id] {
		delete(m.noted, id)
		m.note(launchKey(id), nil)
		m.store.dropAll(programName(id), directoryName(id))
	}
	m.launches.forget(id)
}

// dropWorker ends keeping what is a worker's, but for its parts.
func (m *Master) dropWorker(id proto.WorkerID) {
	m.store.dropAll(linkName(id), nodeName(id), nodePageName(id), notifyName(id), outputName(id), pidName(id))
	for h := range m.sockets {
		m.dropCount(h, id)
	}
	m.note(nodeKey(id), nil)
}

// dropCount ends keeping the page of a worker that has a socket of its own.
func (m *Master) dropCount(h proto.HandleID, w proto.WorkerID) {
	m.store.drop(countName(h, w))
	key := memberKey(h, w)
	_, written := m.table.Get(key)
	if _, noted := m.notes[key]; written || noted {
		m.note(key, nil)
	}
}

// part is a worker's part in a dispatched handle. Its files are kept until the dispatcher
// has taken back what the worker had not read, which may be after the worker's end.
type part struct {
	handle proto.HandleID
	worker proto.WorkerID
	number uint64
}

var partFiles = [...]string{"channel", "far", "page"}

// newPart numbers a part.
func (m *Master) newPart(h proto.HandleID, w proto.WorkerID) part {
	m.parts++
	return part{h, w, m.core.Master().Epoch<<32 + m.parts}
}

func (m *Master) keepPart(p part) {
	m.kept[p.number] = p
	for i, what := range partFiles {
		m.store.put(partName(p, what), m.lendPart(p, i))
	}
}

// lendPart lends one of partFiles.
func (m *Master) lendPart(p part, i int) lender {
	return func(use func(fd int)) {
		m.dispatcher.Lend(uint64(p.handle), p.number, func(channel, far, page int) {
			if fd := [...]int{channel, far, page}[i]; fd >= 0 {
				use(fd)
			}
		})
	}
}

// partLeft is called on the dispatcher's thread.
func (m *Master) partLeft(handle, number uint64) {
	go m.call(func() {
		if p, ok := m.kept[number]; ok {
			delete(m.kept, number)
			for _, what := range partFiles {
				m.store.drop(partName(p, what))
			}
		}
	})
}
