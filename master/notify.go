package master

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
	"github.com/f72e338e/supervisord/internal/census"
	"github.com/f72e338e/supervisord/internal/core"
	"github.com/f72e338e/supervisord/internal/proto"
	"github.com/f72e338e/supervisord/systemd"
)

// notifyLink is what the master keeps of a worker that speaks as to systemd: a notify
// socket of its own, so that the socket says whose word it is. Whoever can reach it may
// send, so its directory is the worker's user's alone; a process of another worker of
// that user is told by its number.
type notifyLink struct {
	m        *Master
	id       proto.WorkerID
	leader   int // the worker's process; set before read
	receiver *systemd.Receiver
	dir      string
	ended    chan struct{} // read has returned
}

const (
	// A worker may send notifyBurst notifications at once and notifyRate a second;
	// beyond that they wait in its socket.
	notifyBurst = 100
	notifyRate  = 50
	// What others send there is thrown away, so that it does not wait before what the
	// worker sends: many of them, and a process is not looked up again for a while.
	strangerBurst = 1000
	strangerRate  = 5000
	strangerFor   = time.Second
)

// strangers are processes that are known not to be a worker's.
type strangers struct {
	until  map[int]time.Time
	bucket *bucket
}

func newStrangers() *strangers {
	return &strangers{map[int]time.Time{}, newBucket(strangerBurst, strangerRate)}
}

func (s *strangers) has(pid int) bool { return time.Now().Before(s.until[pid]) }

func (s *strangers) add(pid int) {
	if len(s.until) >= strangerBurst {
		clear(s.until)
	}
	s.until[pid] = time.Now().Add(strangerFor)
}

// newNotifyLink makes the socket. Errors: those of making a directory and a socket.
func (m *Master) newNotifyLink(id proto.WorkerID, uid int) (*notifyLink, error) {
	if m.notifyDir == "" {
		dir, err := notifyDirectory()
		if err != nil {
			return nil, err
		}
		m.notifyDir = dir
		m.noteDaemon()
	}
	dir := filepath.Join(m.notifyDir, strconv.FormatUint(uint64(id), 10))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	l := &notifyLink{m: m, id: id, dir: dir, ended: make(chan struct{})}
	var err error
	if uid >= 0 {
		err = os.Chown(dir, uid, -1)
	}
	if err == nil {
		l.receiver, err = systemd.NewReceiver(filepath.Join(dir, "notify"))
	}
	if err != nil {
		_ = os.RemoveAll(dir)
		return nil, err
	}
	m.store.put(notifyName(id), lendConn(l.receiver))
	return l, nil
}

// resumeNotifyLink goes on with the socket of an earlier master.
func (m *Master) resumeNotifyLink(id proto.WorkerID, f *fdpass.File) (*notifyLink, error) {
	l := &notifyLink{m: m, id: id, dir: filepath.Join(m.notifyDir, strconv.FormatUint(uint64(id), 10)), ended: make(chan struct{})}
	var err error
	if l.receiver, err = systemd.AdoptReceiver(filepath.Join(l.dir, "notify"), f); err != nil {
		return nil, err
	}
	m.store.resume(notifyName(id), lendConn(l.receiver))
	return l, nil
}

// notifyDirectory makes a directory that every user may pass through: the directory
// of the control socket may be ours alone.
func notifyDirectory() (string, error) {
	var dir string
	var err error
	for _, base := range []string{"/run", os.Getenv("XDG_RUNTIME_DIR"), os.TempDir()} {
		if base == "" {
			continue
		}
		if dir, err = os.MkdirTemp(base, "supervisord-notify-"); err == nil {
			return dir, os.Chmod(dir, 0o711)
		}
	}
	return "", err
}

func (l *notifyLink) close() {
	_ = l.receiver.Close()
	_ = os.RemoveAll(l.dir)
}

// read posts what the worker says, until close.
func (l *notifyLink) read() {
	defer l.m.pumps.Done()
	defer close(l.ended)
	bucket, others := newBucket(notifyBurst, notifyRate), newStrangers()
	for {
		n, err := l.receiver.Receive()
		var dropped *systemd.DroppedError
		switch {
		case errors.As(err, &dropped):
			l.refuse(err.Error())
		case err != nil:
			return
		case others.has(n.PID):
			n.Done()
			others.bucket.take(l.m.done)
			continue
		case !l.isMine(n.PID):
			others.add(n.PID)
			l.refuse(fmt.Sprintf("a notification of process %d, which is not of this worker", n.PID))
		default:
			l.m.call(func() { l.m.step(l.event(n)) })
		}
		n.Done()
		bucket.take(l.m.done)
	}
}

func (l *notifyLink) refuse(text string) {
	l.m.post(core.Said{Worker: l.id, What: core.WhatWorkerRefused, Text: text})
}

func (l *notifyLink) event(n systemd.Notification) core.Notified {
	return core.Notified{Worker: l.id, Ready: n.Ready, Reloading: n.Reloading, Stopping: n.Stopping, Status: n.Status,
		Alive: n.Watchdog, Broken: n.WatchdogTrigger, Extend: n.ExtendTimeout}
}

// isMine reports whether a process is the worker's. One that has ended by now is
// nobody's, as with systemd: sd_notify_barrier(3) waits.
func (l *notifyLink) isMine(pid int) bool {
	if pid == l.leader {
		return true
	}
	if sid, err := unix.Getsid(pid); err == nil && sid == l.leader {
		return true
	}
	trees, err := census.Trees([]int{l.leader}, l.m.orphansOf(map[int]proto.WorkerID{l.leader: l.id}))
	return err == nil && slices.Contains(trees[l.leader], pid)
}

// orphansOf says how processes are known whose parent has ended.
func (m *Master) orphansOf(leaders map[int]proto.WorkerID) census.Orphans {
	lines := make(map[int]string, len(leaders))
	for pid, id := range leaders {
		lines[pid] = m.tagOf(id)
	}
	return census.Orphans{Lines: lines}
}

const (
	// How often a worker that starts is looked at, whether it waits for connections:
	// soon at first, then less and less often.
	acceptingFirst = 5 * time.Millisecond
	acceptingLast  = 250 * time.Millisecond
)

// awaitAccepting looks whether a worker waits for connections on all sockets that it
// was given, until it does or is not starting any more.
func (m *Master) awaitAccepting(id proto.WorkerID, leader int, handles []proto.HandleID, gone <-chan struct{}) {
	defer m.pumps.Done()
	told := false
	for pause := acceptingFirst; ; pause = min(2*pause, acceptingLast) {
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-gone:
			timer.Stop()
			return
		case <-m.done:
			timer.Stop()
			return
		}
		waits, err := m.isAccepting(id, leader, handles)
		if err != nil && !told {
			told = true
			m.log.Warn("cannot see whether a worker listens (ready = \"notify\", or the right CAP_SYS_PTRACE)", "worker", id, "err", err)
		}
		starting := false
		ran := m.call(func() {
			if waits {
				m.step(core.Accepting{Worker: id})
			}
			w, ok := m.core.Worker(id)
			starting = ok && (w.State == core.Starting || w.State == core.Forking)
		})
		if !ran || !starting {
			return
		}
	}
}

// isAccepting asks the kernel. The error says that it may not tell.
func (m *Master) isAccepting(id proto.WorkerID, leader int, handles []proto.HandleID) (bool, error) {
	files, err := m.borrow(handles)
	if err != nil {
		return false, nil // short of descriptors: later
	}
	defer files.close()
	trees, err := census.Trees([]int{leader}, m.orphansOf(map[int]proto.WorkerID{leader: id}))
	if err != nil {
		return false, err
	}
	for _, f := range files {
		s, err := census.Look(f.Fd())
		if err != nil {
			return false, err
		}
		if how, err := census.Accepting(s, trees[leader]); how == "" {
			return false, err
		}
	}
	return len(files) > 0, nil
}
