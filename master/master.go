package master

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/config"
	"github.com/f72e338e/supervisord/internal/core"
	"github.com/f72e338e/supervisord/internal/dispatch"
	"github.com/f72e338e/supervisord/internal/proto"
	"github.com/f72e338e/supervisord/internal/record"
	"github.com/f72e338e/supervisord/systemd"
)

// Options of a master.
type Options struct {
	Config  *config.Config                 // nil: it cannot be read, and an earlier master's is to be used
	Load    func() (*config.Config, error) // for a reload; nil: nothing to load again
	Socket  string                         // control socket; "" = the configuration's, else the default
	Version string
	Output  io.Writer // workers' captured output; a write may block without harm
	Log     io.Writer // log lines; likewise
	Label   bool      // prefix captured lines with pool/slot, and escape control characters
	Times   bool      // begin log lines with the time

	// Notify speaks to whoever started the daemon; nil: who NOTIFY_SOCKET names, if
	// anybody. It is the master's from New on.
	Notify *systemd.Notifier
	// Kept says that whoever Notify speaks to keeps files (Notifier.HasStore), so that
	// workers and sockets outlive a crash of this process.
	Kept bool
}

// Master is a running daemon. Create it with New, and call Run once.
type Master struct {
	opts    Options
	file    string // of the configuration
	log     hclog.Logger
	begun   time.Time
	output  *sink
	logged  *sink
	ring    *eventRing
	control *control
	notify  *systemd.Notifier
	tag     uint64 // see tagOf
	store   *store

	recoveries, upgrades int
	degraded             string  // what is wrong with the master itself; the loop's
	left                 *legacy // of an earlier master; nil without one

	inbox chan any      // to the loop, in order: a core.Event, or a func to call
	done  chan struct{} // closed when the loop has ended
	pumps sync.WaitGroup

	// Owned by the loop.
	core      *core.Core
	table     *record.Table
	notes     map[string][]byte // to be written to it, see note
	noted     map[uint64]bool   // launches that are in it
	parts     uint64            // that were numbered
	kept      map[uint64]part   // by number
	unwritten bool              // it could not be written
	sockets   map[proto.HandleID]*listening
	settleAt  core.Time        // see settle; 0 = not
	settles   int              // how many times more
	lookedAt  core.Time        // when all sockets were examined for harm last
	inherited []systemd.Socket // not used yet
	workers   map[proto.WorkerID]*process
	notifyDir string    // of the notify sockets of workers; "" = none yet
	survey    *survey   // to be made; nil = none
	surveyed  core.Time // when the last one was made
	balances  bool      // see balance
	tails     *tails
	replies   map[core.OpID]func(core.Result)
	later     []core.Event // of the loop's own making, before any other
	current   core.Config  // the configuration in force, for a restart
	pending   map[core.OpID]candidate
	applied   bool // a configuration has been in force
	nextOp    core.OpID
	quit      *int
	stopAsks  int
	watchdog  time.Duration // ping interval; 0 = none
	pingAt    core.Time

	watch      *watch
	dispatcher *dispatch.Dispatcher // nil until a handle is dispatched

	spawning chan struct{} // bounds the forks under way
	hangups  chan struct{} // capacity 1: a reload is wanted by SIGHUP

	restarting sync.Mutex // restarts that wait for a roll-out wait in line

	files    sync.Map // *output of workers with a file, to reopen
	launches launches
	snapshot atomic.Pointer[snapshot]
}

// now is the monotonic clock since boot.
func now() core.Time {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic("master: no monotonic clock: " + err.Error())
	}
	return core.Time(ts.Nano())
}

// New opens the control socket and takes the sockets that systemd passed. Errors:
// another master uses the control socket (with its process number), the socket's
// directory cannot be made or used, an inherited socket is unusable.
func New(opts Options) (*Master, error) {
	unread := opts.Config == nil
	if unread {
		opts.Config = &config.Config{Supervisor: config.Supervisor{LogLevel: "info", LogFormat: "text"}}
	}
	m := &Master{
		opts: opts, file: opts.Config.File, begun: time.Now(), output: newSink(opts.Output), logged: newSink(opts.Log),
		ring: newEventRing(1024), inbox: make(chan any, 256), done: make(chan struct{}), pending: map[core.OpID]candidate{},
		core: core.New(1, rand.Uint64()), sockets: map[proto.HandleID]*listening{}, workers: map[proto.WorkerID]*process{},
		tag: rand.Uint64(), tails: newTails(), replies: map[core.OpID]func(core.Result){}, nextOp: 1,
		spawning: make(chan struct{}, max(2, runtime.NumCPU())), hangups: make(chan struct{}, 1),
		notes: map[string][]byte{}, noted: map[uint64]bool{}, kept: map[uint64]part{},
	}
	m.log = newLogger(opts, m.logged)
	m.launches.init()
	m.snapshot.Store(newSnapshot())
	if m.notify = opts.Notify; m.notify == nil {
		m.notify = systemd.NewNotifier()
	}
	m.notify.UnsetEnvironment()
	m.store = &store{n: m.notify, log: m.log, kept: opts.Kept, lenders: map[string]lender{}}
	if d, ok := systemd.WatchdogInterval(); ok {
		m.watchdog = d / 2
	}
	inherited, err := systemd.Inherited()
	if err != nil {
		return nil, err
	}
	files, others := separate(inherited)
	m.inherited = others
	if err = m.inherit(files, unread); err == nil {
		m.watch, err = newWatch()
	}
	if err == nil {
		if m.control, err = m.openControl(); err != nil {
			m.watch.close()
		}
	}
	if err != nil {
		files.close()
		m.closeInherited()
		return nil, err
	}
	return m, nil
}

// openControl opens the control socket. Where nobody said where it should be and
// no place can be written to, as in a container with a read-only root, the daemon
// serves without one.
func (m *Master) openControl() (*control, error) {
	path := m.opts.Socket
	if path == "" {
		path = m.opts.Config.Control.Socket
	}
	c, err := openControl(m, path, m.opts.Config.Control)
	if err != nil && path == "" && (errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EROFS)) {
		m.log.Warn("no control socket, so no commands: name a place by --socket or [control] socket", "err", err.Error())
		return nil, nil
	}
	return c, err
}

// ErrStart is wrapped by the error that Run reports when the first configuration
// could not be put into force.
var ErrStart = errors.New("cannot start")

// Run serves until the master is told to stop: by a signal, over the control
// socket, or when ctx ends, which means a graceful stop. It returns the exit code
// of the daemon, and an error wrapping ErrStart when it never came up; by then
// every worker has ended and every socket is closed.
func (m *Master) Run(ctx context.Context) (int, error) {
	stopSignals := m.watchSignals()
	defer stopSignals()
	if m.opts.Kept {
		m.tell(systemd.Status("starting")) // the keeper holds signals back until it hears something
	}
	m.control.serve()
	if m.watchdog > 0 {
		m.pingAt = now()
	}
	var failed error
	m.logInherited()
	err := m.begin(func(res core.Result) {
		if res.Error != "" && !m.applied { // a worker that fails is no reason to give up
			failed = fmt.Errorf("%w: %s", ErrStart, res.Error)
			m.step(core.StopAsked{Code: 1})
		}
	})
	if err != nil {
		m.control.close()
		m.watch.close()
		m.closeInherited()
		return 1, fmt.Errorf("%w: %w", ErrStart, err)
	}
	m.pumps.Add(1)
	go m.watchShut()
	if m.store.kept {
		go m.watchKeeper()
	}
	code := m.loop(ctx)
	close(m.done)
	m.watch.close()
	for _, entry := range m.sockets {
		entry.group.close()
	}
	if m.dispatcher != nil {
		m.dispatcher.Close()
	}
	m.control.close()
	m.pumps.Wait()
	if m.notifyDir != "" {
		_ = os.RemoveAll(m.notifyDir)
	}
	m.closeInherited()
	m.store.clear()
	_ = m.table.Close()
	_ = m.notify.Close()
	m.output.close()
	m.logged.close()
	if failed != nil && code == 0 {
		code = 1
	}
	return code, failed
}

// begin goes on with what an earlier master left, or starts anew.
func (m *Master) begin(reply func(core.Result)) error {
	if m.left != nil {
		m.takeOver()
		return nil
	}
	m.noteDaemon()
	return m.startWith(reply)
}

func (m *Master) startWith(reply func(core.Result)) error {
	cfg, err := m.launches.plan(m.opts.Config)
	if err != nil {
		return err
	}
	op := m.newOp(reply)
	m.pending[op] = candidate{m.opts.Config, cfg}
	m.step(core.Configured{Op: op, Kind: "start", Config: cfg})
	return nil
}

// post hands an event to the loop; it waits while the loop is behind. It returns
// false when the loop has ended.
func (m *Master) post(ev core.Event) bool {
	select {
	case m.inbox <- ev:
		return true
	case <-m.done:
		return false
	}
}

// call runs fn in the loop and waits for it. It returns false, without having run
// it, when the loop has ended.
func (m *Master) call(fn func()) bool {
	ran := make(chan struct{})
	select {
	case m.inbox <- func() { fn(); close(ran) }:
	case <-m.done:
		return false
	}
	select {
	case <-ran:
		return true
	case <-m.done:
		return false
	}
}

// newOp numbers a command. reply is called once, in the loop.
func (m *Master) newOp(reply func(core.Result)) core.OpID {
	id := m.nextOp
	m.nextOp++
	if reply != nil {
		m.replies[id] = reply
	}
	return id
}

func (m *Master) closeInherited() {
	for _, s := range m.inherited {
		_ = s.File.Close()
	}
	m.inherited = nil
}

func (m *Master) logInherited() {
	for _, s := range m.inherited {
		m.log.Info("socket inherited", "listener", s.Name)
	}
}

// masterState names what the master is doing, for status.
func masterState(mr core.Master) string {
	switch {
	case mr.Stopping:
		return "stopping"
	case mr.Ready:
		return "running"
	}
	return "starting"
}
