package master

import (
	"maps"
	"slices"
	"time"

	"github.com/f72e338e/supervisord/fdpass"
	"github.com/f72e338e/supervisord/internal/census"
	"github.com/f72e338e/supervisord/internal/core"
	"github.com/f72e338e/supervisord/internal/proto"
)

// Workers that do not tell how many connections they have are surveyed: the kernel
// knows. A survey is made when somebody asks, of all that were asked for until it
// begins, and what it found is as good as new for surveyAge.
const (
	surveyAge = time.Second
	// surveyWait bounds how long status waits for one.
	surveyWait = 500 * time.Millisecond
	// surveyEvery is how often those are surveyed to whom connections are handed by
	// how many they have.
	surveyEvery = time.Second
)

// survey is one that is to be made.
type survey struct {
	re   map[proto.WorkerID]uint64 // who is to be counted: the request that it answers, 0 for none
	done chan struct{}
}

// files are borrowed sockets: copies, which close when they are given back.
type files []*fdpass.File

func (f files) close() { fdpass.CloseAll(f) }

// borrow copies the sockets of handles. Error: EMFILE.
func (m *Master) borrow(handles []proto.HandleID) (list files, err error) {
	m.call(func() {
		for _, id := range handles {
			entry := m.sockets[id]
			if entry == nil || entry.file == nil {
				continue
			}
			var f *fdpass.File
			if f, err = entry.file.Dup(); err != nil {
				list.close()
				list = nil
				return
			}
			list = append(list, f)
		}
	})
	return list, err
}

// tellsCounts reports whether a worker counts its connections itself.
func (p *process) tellsCounts() bool { return p.link != nil }

// askSurvey is called in the loop. re is the request that the count answers.
func (m *Master) askSurvey(worker proto.WorkerID, re uint64) *survey {
	if m.survey == nil {
		m.survey = &survey{re: map[proto.WorkerID]uint64{}, done: make(chan struct{})}
		m.pumps.Add(1)
		go m.makeSurvey()
	}
	if re != 0 || m.survey.re[worker] == 0 {
		m.survey.re[worker] = re
	}
	return m.survey
}

// subject is a worker that is counted.
type subject struct {
	id    proto.WorkerID
	pid   int
	holds []proto.HandleID
}

// makeSurvey counts those that were asked for.
func (m *Master) makeSurvey() {
	defer m.pumps.Done()
	var s *survey
	var subjects []subject
	ran := m.call(func() {
		s, m.survey = m.survey, nil
		for _, id := range slices.Sorted(maps.Keys(s.re)) {
			if w, ok := m.core.Worker(id); ok && w.PID != 0 {
				subjects = append(subjects, subject{id, w.PID, w.Holds})
			}
		}
	})
	if !ran {
		return
	}
	open := m.count(subjects)
	m.call(func() {
		m.surveyed = now()
		for _, sub := range subjects {
			byHandle, known := open[sub.id]
			total := int64(0)
			for handle, n := range byHandle {
				total += n
				if p := m.workers[sub.id]; p != nil && p.node != nil {
					m.dispatcher.SetOpen(uint64(handle), uint64(sub.id), n)
				}
			}
			m.step(core.Counted{Worker: sub.id, Re: s.re[sub.id], Connections: total, Unknown: !known})
		}
	})
	close(s.done)
}

// count asks the kernel how many connections each has open, by handle. Who is missing
// could not be counted.
func (m *Master) count(subjects []subject) map[proto.WorkerID]map[proto.HandleID]int64 {
	var handles []proto.HandleID
	leaders := map[int]proto.WorkerID{}
	for _, s := range subjects {
		leaders[s.pid] = s.id
		for _, id := range s.holds {
			if !slices.Contains(handles, id) {
				handles = append(handles, id)
			}
		}
	}
	open := map[proto.WorkerID]map[proto.HandleID]int64{}
	list, err := m.borrow(handles)
	if err != nil || len(list) != len(handles) {
		return open
	}
	defer list.close()
	sockets := make([]census.Socket, len(list))
	for i, f := range list {
		if sockets[i], err = census.Look(f.Fd()); err != nil {
			return open
		}
	}
	trees, err := census.Trees(slices.Collect(maps.Keys(leaders)), m.orphansOf(leaders))
	if err != nil {
		m.log.Debug("connections not counted", "err", err)
		return open
	}
	tallies, err := census.Connections(sockets, trees)
	if err != nil {
		m.log.Debug("connections not counted", "err", err)
		return open
	}
	for pid, t := range tallies {
		if t.Err != nil {
			continue
		}
		byHandle := map[proto.HandleID]int64{}
		for i, n := range t.Open {
			byHandle[handles[i]] = int64(n)
		}
		open[leaders[pid]] = byHandle
	}
	return open
}

// refreshCounts makes a survey of all that do not tell, unless one is new enough, and
// waits for it, not long. It is called in any goroutine but the loop's.
func (m *Master) refreshCounts() {
	var s *survey
	m.call(func() {
		if m.surveyed != 0 && now().Sub(m.surveyed) < surveyAge {
			return
		}
		for id, p := range m.workers {
			if w, ok := m.core.Worker(id); ok && !p.tellsCounts() && w.PID != 0 && len(w.Holds) > 0 {
				s = m.askSurvey(id, 0)
			}
		}
	})
	if s == nil {
		return
	}
	timer := time.NewTimer(surveyWait)
	defer timer.Stop()
	select {
	case <-s.done:
	case <-timer.C:
	case <-m.done:
	}
}

// balance surveys Node workers for as long as the master lives: under
// least_connections it goes by what they have.
func (m *Master) balance() {
	defer m.pumps.Done()
	ticker := time.NewTicker(surveyEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-m.done:
			return
		}
		m.call(func() {
			for id, p := range m.workers {
				if w, ok := m.core.Worker(id); ok && p.node != nil && m.isLeast(w.Holds) {
					m.askSurvey(id, 0)
				}
			}
		})
	}
}

// isLeast reports whether one of the handles is dispatched by connections.
func (m *Master) isLeast(handles []proto.HandleID) bool {
	return slices.ContainsFunc(handles, func(id proto.HandleID) bool {
		h, ok := m.core.Handle(id)
		return ok && h.Policy == proto.PolicyLeastConnections
	})
}
