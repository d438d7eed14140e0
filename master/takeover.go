package master

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/f72e338e/supervisord/config"
	"github.com/f72e338e/supervisord/fdpass"
	"github.com/f72e338e/supervisord/internal/core"
	"github.com/f72e338e/supervisord/internal/proto"
	"github.com/f72e338e/supervisord/internal/record"
	"github.com/f72e338e/supervisord/systemd"
)

// A master that finds what another one left takes over: the sockets, the workers with
// all that they speak over, and the state as of the last step that was recorded.
//
//	files with names ─┐
//	                  ├─▶ sockets, links, processes as before ─▶ TookOver ─▶ the loop
//	record ───────────┘                                           │
//	                        workers say again what they hold ◀────┘
//
// What has no file any more, or ended meanwhile, the core is told like any other end.

// legacy is what an earlier master left.
type legacy struct {
	files  kept
	pieces map[string][]byte
	state  core.State
	begun  time.Time

	startled []proto.HandleID // see calm
}

// inherit looks for what an earlier master left, and takes it, or begins a record.
// With unread the configuration is the earlier master's, too.
func (m *Master) inherit(files kept, unread bool) error {
	if list := files[recordName]; len(list) == 2 {
		delete(files, recordName)
		if err := m.resume(list[0], list[1], files); err != nil {
			fdpass.CloseAll(list)
			return fmt.Errorf("what the last master left cannot be used: %w", err)
		}
		m.useRecorded()
		return nil
	}
	if unread {
		return errors.New("no configuration, and no earlier master's")
	}
	// Without a record the rest means nothing.
	m.discard(files)
	var err error
	if m.table, err = record.New(); err != nil {
		return err
	}
	m.keepRecord()
	return nil
}

// useRecorded takes what of the configuration concerns the master itself from the record:
// what is in force counts, not what the file says by now.
func (m *Master) useRecorded() {
	var d daemonPiece
	if json.Unmarshal(m.left.pieces[daemonKey], &d) != nil {
		return
	}
	if m.file = d.File; m.opts.Load == nil && d.File != "" { // the file may have been away
		m.opts.Load = func() (*config.Config, error) { return config.Load(d.File) }
	}
	m.opts.Config.File, m.opts.Config.Supervisor, m.opts.Config.Control = d.File, d.Supervisor, d.Control
	m.log = newLogger(m.opts, m.logged)
	m.store.log = m.log
}

func (m *Master) keepRecord() {
	for i, f := range m.table.Files() {
		name := recordName
		if m.store.kept {
			if err := m.notify.Store(name, f); err != nil {
				m.store.complain(name, err)
			}
		}
		m.store.resume(name+"."+strconv.Itoa(i), lendFile(f))
	}
}

// discard gives up files that nobody needs any more.
func (m *Master) discard(files kept) {
	for name := range files {
		m.store.forget(name)
	}
	files.close()
}

func (m *Master) resume(a, b *fdpass.File, files kept) error {
	l := &legacy{files: files, begun: time.Now()}
	table, err := record.Open(a, b)
	if err != nil {
		return err
	}
	l.pieces = table.All()
	if l.state, err = core.Assemble(l.pieces); err != nil {
		return err
	}
	var d daemonPiece
	if err := json.Unmarshal(l.pieces[daemonKey], &d); err != nil {
		return fmt.Errorf("%s: %w", daemonKey, err)
	}
	for _, h := range l.state.Handles {
		if h.State == core.HandleOpen && !files.has(handleName(h.ID)) {
			return fmt.Errorf("the socket %s was not kept", h.Bound.Address)
		}
	}
	c, err := core.Restore(l.state)
	if err != nil {
		return err
	}
	l.state = c.State() // a copy: the other is the core's
	m.table, m.core, m.left = table, c, l
	m.tag, m.notifyDir, m.current, m.applied = d.Tag, d.NotifyDir, d.Config, d.Applied
	m.recoveries, m.upgrades = d.Recoveries+1, d.Upgrades
	m.nextOp = core.OpID(l.state.Master.Epoch+1) << 32
	for i, f := range table.Files() {
		m.store.resume(recordName+"."+strconv.Itoa(i), lendFile(f))
	}
	m.resumeLaunches()
	return nil
}

func (m *Master) resumeLaunches() {
	for key, data := range m.left.pieces {
		text, ok := strings.CutPrefix(key, "launch/")
		id, err := strconv.ParseUint(text, 10, 64)
		if !ok || err != nil {
			continue
		}
		var p launchPiece
		if err := json.Unmarshal(data, &p); err != nil {
			m.log.Error("how workers are started is not known any more", "name", key, "err", err)
		}
		program, directory := m.left.files.take(programName(id)), m.left.files.take(directoryName(id))
		m.launches.resume(id, p, program, directory)
		m.noted[id] = true
		if program != nil {
			m.store.resume(programName(id), lendFile(program))
		}
		if directory != nil {
			m.store.resume(directoryName(id), lendFile(directory))
		}
	}
}

// takeOver is called before the loop begins.
func (m *Master) takeOver() {
	l := m.left
	m.left = nil
	m.noteDaemon()
	m.dropDuplicates(l)
	for _, h := range l.state.Handles {
		if h.State == core.HandleOpen {
			m.resumeSocket(l, h)
		}
	}
	var heirs []heir
	for _, w := range l.state.Workers {
		heirs = append(heirs, m.resumeWorker(l, w))
	}
	for _, h := range l.state.Handles {
		if m.sockets[h.ID] != nil {
			m.resumeDispatch(l, h)
		}
	}
	m.calm(l)
	m.publishAll(l.state)
	m.step(core.TookOver{Why: "the one before ended without a word"})
	adopted := 0
	for _, h := range heirs {
		h.tell(m)
		if h.attend != nil {
			h.attend()
			adopted++
		}
	}
	m.discard(l.files)
	if m.core.Master().Ready {
		m.announce()
	}
	if m.core.Master().Stopping {
		m.tell(systemd.Stopping(), systemd.Status("stopping"))
	}
	m.log.Info("recovered", "workers", adopted, "lost", len(heirs)-adopted, "handles", len(m.sockets), "took", rounded(time.Since(l.begun)))
}

// dropDuplicates closes what systemd passed again that a handle has already.
func (m *Master) dropDuplicates(l *legacy) {
	left := m.inherited[:0]
	for _, s := range m.inherited {
		taken := false
		for _, h := range l.state.Handles {
			taken = taken || h.State == core.HandleOpen && (h.Spec.Inherit == s.Name || h.Bound.Inherited && h.Key.Name == s.Name)
		}
		if taken {
			_ = s.File.Close()
		} else {
			left = append(left, s)
		}
	}
	m.inherited = left
}

// publishAll shows the whole state.
func (m *Master) publishAll(s core.State) {
	next := newSnapshot()
	next.master = s.Master
	for _, p := range s.Pools {
		for i := range p.Slots {
			next.slots.Set(slotKey(p.Name, uint64(i)), p.Slots[i])
		}
		p.Slots = nil
		next.pools.Set(p.Name, p)
	}
	for _, w := range s.Workers {
		next.workers.Set(w.ID, w)
	}
	for _, h := range s.Handles {
		next.handles.Set(h.ID, h)
	}
	m.snapshot.Store(next)
}
