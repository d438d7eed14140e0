package master

import (
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// sink writes lines to a file that may block, from a goroutine of its own. When
// more than its queue holds are waiting it drops lines and counts them: nothing
// in the master ever waits for whoever reads its output.
type sink struct {
	w     io.Writer
	lines chan []byte
	lost  atomic.Uint64
	stop  chan struct{}
	once  sync.Once
	ended chan struct{}
}

const (
	sinkQueue = 1024            // lines
	sinkClose = 2 * time.Second // how long close waits for a file that blocks
)

func newSink(w io.Writer) *sink {
	s := &sink{w: w, lines: make(chan []byte, sinkQueue), stop: make(chan struct{}), ended: make(chan struct{})}
	go s.run()
	return s
}

func (s *sink) run() {
	defer close(s.ended)
	for {
		select {
		case line := <-s.lines:
			_, _ = s.w.Write(line) // a reader that is gone is no reason to stop
		case <-s.stop:
			for len(s.lines) > 0 {
				_, _ = s.w.Write(<-s.lines)
			}
			return
		}
	}
}

// Write queues a copy of p, or drops it. It never blocks and never fails.
func (s *sink) Write(p []byte) (int, error) {
	select {
	case s.lines <- append([]byte(nil), p...):
	default:
		s.lost.Add(1)
	}
	return len(p), nil
}

// close writes what is queued, and waits for that, but not for ever.
func (s *sink) close() {
	s.once.Do(func() { close(s.stop) })
	timer := time.NewTimer(sinkClose)
	defer timer.Stop()
	select {
	case <-s.ended:
	case <-timer.C:
	}
}
