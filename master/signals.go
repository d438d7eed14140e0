package master

import (
	"os"
	"os/signal"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/internal/api"
	"github.com/f72e338e/supervisord/internal/core"
)

// watchSignals begins to handle signals; the returned function ends that.
//
//	HUP reload · TERM, INT graceful stop, the second fast · QUIT fast stop
//	USR1 reopen output files · TTIN, TTOU a worker more or less of the only pool
func (m *Master) watchSignals() func() {
	ch := make(chan os.Signal, 16)
	signal.Ignore(unix.SIGPIPE)
	signal.Notify(ch, unix.SIGHUP, unix.SIGTERM, unix.SIGINT, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2, unix.SIGTTIN, unix.SIGTTOU, unix.SIGWINCH)
	terminal := hasTerminal()
	stop := make(chan struct{})
	m.pumps.Add(2)
	go m.reloadByHangup()
	go func() {
		defer m.pumps.Done()
		for {
			select {
			case sig := <-ch:
				m.handleSignal(sig, terminal)
			case <-stop:
				return
			case <-m.done:
				return
			}
		}
	}()
	return func() {
		signal.Stop(ch)
		close(stop)
	}
}

// reloadByHangup reloads for each SIGHUP, apart from the goroutine that hears
// signals: a file that cannot be read in time must not keep it from hearing TERM.
func (m *Master) reloadByHangup() {
	defer m.pumps.Done()
	for {
		select {
		case <-m.hangups:
			m.log.Info("reload asked", "signal", "SIGHUP")
			m.reload(func(core.OpID) {}, func(res api.Result) {
				if res.Error != "" {
					m.log.Error("reload failed", "err", res.Error)
				}
			})
		case <-m.done:
			return
		}
	}
}

func (m *Master) handleSignal(sig os.Signal, terminal bool) {
	switch sig {
	case unix.SIGHUP:
		if terminal && !hasTerminal() { // the terminal is gone, and nobody asked for a reload
			m.call(func() { m.stopAsked(false, "SIGHUP: the terminal is gone") })
			return
		}
		select {
		case m.hangups <- struct{}{}:
		default: // one is waiting already, and will read the file as it is then
		}
	case unix.SIGTERM, unix.SIGINT:
		m.call(func() { m.stopAsked(false, unix.SignalName(sig.(unix.Signal))) })
	case unix.SIGQUIT:
		m.call(func() { m.stopAsked(true, "SIGQUIT") })
	case unix.SIGUSR1:
		m.log.Info("output files reopened", "signal", "SIGUSR1")
		m.reopenFiles()
	case unix.SIGUSR2:
		m.log.Warn("upgrade in place is not available in this version", "signal", "SIGUSR2")
	case unix.SIGTTIN:
		m.call(func() { m.nudge(1) })
	case unix.SIGTTOU:
		m.call(func() { m.nudge(-1) })
	}
}

// stopAsked runs in the loop. The second wish makes it fast.
func (m *Master) stopAsked(fast bool, cause string) {
	m.stopAsks++
	m.log.Info("stop asked", "cause", cause)
	m.step(core.StopAsked{Fast: fast || m.stopAsks > 1})
}

// nudge gives the only pool a worker more or less.
func (m *Master) nudge(by int) {
	s := m.snapshot.Load()
	if s.pools.Len() != 1 {
		m.log.Warn("not scaled: there is not just one pool; use the scale command")
		return
	}
	name, p, _ := s.pools.GetAt(0)
	if p.Desired+by < 1 {
		m.log.Warn("not scaled: the pool keeps one worker; use the scale command", "pool", name)
		return
	}
	m.step(core.ScaleAsked{Op: m.newOp(nil), Pool: name, N: p.Desired + by})
}

// hasTerminal reports whether the process has a controlling terminal that is still there.
func hasTerminal() bool {
	fd, err := unix.Open("/dev/tty", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer func() { _ = unix.Close(fd) }()
	_, err = unix.IoctlGetTermios(fd, unix.TCGETS)
	return err == nil
}
