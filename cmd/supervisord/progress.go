package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/f72e338e/supervisord/internal/api"
)

// progress shows what happens while a command is under way: a line an event, and
// on a terminal below them a bar of the roll-out, drawn over itself.
type progress struct {
	w        io.Writer
	terminal bool
	pool     string
	done     int
	total    int
	phase    string
	drawn    bool
}

const barWidth = 30

func newProgress(f *os.File) *progress {
	return &progress{w: f, terminal: isTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb"}
}

// event shows one event; what only matters for debugging is left out.
func (p *progress) event(e api.Event) {
	if e.Level == "debug" || strings.HasPrefix(e.Event, "handle.") && e.Level == "info" {
		return
	}
	p.wipe()
	_, _ = fmt.Fprintln(p.w, describe(e))
	switch e.Event {
	case "rollout.started":
		p.pool, p.done, p.total, p.phase = e.Pool, 0, 0, "starting the first"
	case "rollout.replaced":
		p.pool, p.phase = e.Pool, "replacing"
		_, _ = fmt.Sscanf(e.Result, "%d of %d", &p.done, &p.total)
	case "rollout.watching":
		p.phase = fmt.Sprintf("watching for %v", time.Duration(e.DelayMS)*time.Millisecond)
	case "rollout.failed":
		p.phase = "going back"
	case "rollout.done", "rollout.reverted":
		p.pool = ""
	}
	p.draw()
}

// end takes the bar away.
func (p *progress) end() { p.wipe() }

func (p *progress) draw() {
	if !p.terminal || p.pool == "" {
		return
	}
	filled := 0
	if p.total > 0 {
		filled = barWidth * p.done / p.total
	}
	_, _ = fmt.Fprintf(p.w, "%s [%s%s] %d of %d  %s", p.pool, strings.Repeat("=", filled), strings.Repeat(" ", barWidth-filled), p.done, p.total, p.phase)
	p.drawn = true
}

func (p *progress) wipe() {
	if p.drawn {
		_, _ = fmt.Fprint(p.w, "\r\x1b[K")
		p.drawn = false
	}
}

// describe writes an event for people: what, which, why.
func describe(e api.Event) string {
	parts := []string{e.Time.Local().Format("15:04:05.000"), strings.ReplaceAll(e.Event, ".", " ")}
	add := func(s string, on bool) {
		if on {
			parts = append(parts, s)
		}
	}
	place := e.Pool
	if e.Slot != nil {
		place += fmt.Sprintf("/%d", *e.Slot)
	}
	add(place, place != "")
	add(fmt.Sprintf("worker %d", e.Worker), e.Worker != 0)
	add(fmt.Sprintf("pid %d", e.PID), e.PID != 0)
	add(fmt.Sprintf("generation %d", e.Gen), e.Gen != 0)
	add(e.Name, e.Name != "")
	add(e.Address, e.Address != "")
	add(e.From+" → "+e.To, e.From != "")
	add(e.Result, e.Result != "")
	add("because: "+e.Cause, e.Cause != "" && e.Cause != e.Result)
	add(fmt.Sprintf("attempt %d", e.Attempt), e.Attempt != 0)
	add(fmt.Sprintf("in %v", time.Duration(e.DelayMS)*time.Millisecond), e.DelayMS != 0)
	add(fmt.Sprintf("after %v", time.Duration(e.TookMS)*time.Millisecond), e.TookMS != 0)
	return clean([]string{strings.Join(parts, "  ")})[0]
}
