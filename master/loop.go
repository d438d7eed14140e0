package master

import (
	"context"
	"time"

	"github.com/f72e338e/supervisord/internal/core"
	"github.com/f72e338e/supervisord/systemd"
)

// loop owns the core until it quits. It has one timer, for the core's next
// deadline and the watchdog's next ping.
func (m *Master) loop(ctx context.Context) int {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	stopped := ctx.Done()
	for m.quit == nil {
		m.armTimer(timer)
		select {
		case in := <-m.inbox:
			if fn, ok := in.(func()); ok {
				fn()
				m.run()
			} else {
				m.step(in.(core.Event))
				m.settleAfter(in.(core.Event))
				m.heard(in.(core.Event))
			}
		case <-timer.C:
			m.ping()
			m.settle()
			m.step(core.Tick{})
		case <-stopped:
			stopped = nil
			m.step(core.StopAsked{})
		}
	}
	return *m.quit
}

// armTimer sets the timer to the earliest thing to do; with nothing to do it does
// not run, so that a master at rest is not woken.
func (m *Master) armTimer(timer *time.Timer) {
	at, ok := m.core.NextDeadline()
	if m.watchdog > 0 && (!ok || m.pingAt < at) {
		at, ok = m.pingAt, true
	}
	if m.settleAt != 0 && (!ok || m.settleAt < at) {
		at, ok = m.settleAt, true
	}
	if !ok {
		timer.Stop()
		return
	}
	timer.Reset(max(0, at.Sub(now())))
}

// ping tells the watchdog that the loop turns.
func (m *Master) ping() {
	if m.watchdog == 0 || now() < m.pingAt {
		return
	}
	if err := m.notify.Send(systemd.Watchdog()); err != nil {
		m.log.Debug("watchdog not told", "err", err)
	}
	m.pingAt = now().Add(m.watchdog)
}

// step gives the core one event, and then those of the loop's own making.
func (m *Master) step(ev core.Event) {
	m.later = append(m.later, ev)
	m.run()
}

// run gives the core what the loop has for it.
func (m *Master) run() {
	for len(m.later) > 0 {
		ev := m.later[0]
		m.later = m.later[1:]
		m.noteLaunches(ev)
		actions := m.core.Step(now(), ev)
		m.noteStep()
		m.write()
		for _, a := range actions {
			m.do(a)
		}
		m.publish()
	}
	m.write()
}

// do carries out one action. Whatever takes time is begun here and posts its
// outcome later.
func (m *Master) do(a core.Action) {
	switch a := a.(type) {
	case core.Spawn:
		m.spawn(a)
	case core.Send:
		m.send(a)
	case core.Terminate:
		m.signal(a.Worker, a.Signal)
	case core.Kill:
		m.kill(a.Worker)
	case core.Bind:
		m.bind(a)
	case core.Admit:
		m.admit(a)
		if a.Yes {
			m.lookOf(a.Worker)
		}
	case core.Withdraw:
		m.withdraw(a.Worker, a.Handle)
	case core.SetPolicy:
		m.setPolicy(a)
	case core.Relisten:
		m.relisten(a)
	case core.Rouse:
		m.rouse(a.Worker)
	case core.Mend:
		m.mend(a)
	case core.Release:
		m.release(a.Handle)
	case core.Forget:
		m.forgetLaunch(a.Launch)
	case core.Reply:
		m.reply(a)
	case core.Changed:
		m.changed(a)
	case core.Quit:
		m.quit = &a.Code
	}
}

func (m *Master) reply(a core.Reply) {
	fn := m.replies[a.Op]
	delete(m.replies, a.Op)
	if fn != nil {
		fn(a.Result)
	}
}
