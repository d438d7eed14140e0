package core

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/google/go-cmp/cmp"
)

// TestScripts runs the golden scripts in testdata/scripts: each line of input is one
// event, the output is the full text of the actions. After every step the
// invariants are checked, and State → Restore → State must be the identity.
//
//	go test ./internal/core -run TestScripts -rewrite
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata/scripts", func(t *testing.T, path string) {
		var d *driver
		datadriven.RunTest(t, path, func(t *testing.T, td *datadriven.TestData) string {
			if d == nil {
				d = newDriver(t)
			}
			d.t = t
			switch td.Cmd {
			case "config", "reload", "restart":
				return d.configure(td)
			case "do":
				var out strings.Builder
				for _, line := range strings.Split(strings.TrimSpace(td.Input), "\n") {
					out.WriteString(d.line(line))
				}
				return orNothing(out.String())
			case "state":
				return d.state()
			}
			t.Fatalf("unknown command %q", td.Cmd)
			return ""
		})
	})
}

func orNothing(s string) string {
	if s == "" {
		return "nothing\n"
	}
	return s
}

// driver owns a core and its virtual clock, and speaks the scripts' language.
type driver struct {
	t   testing.TB
	c   *Core
	now Time
	ops OpID
	cfg Config
	inv *invariants

	pieces map[string][]byte // see noted
}

func newDriver(t testing.TB) *driver {
	return &driver{t: t, c: New(1, 1), now: Time(time.Hour), inv: newInvariants()}
}

func (d *driver) step(ev Event) string {
	d.t.Helper()
	actions := d.c.Step(d.now, ev)
	d.inv.after(d.t, d.c, ev, actions)
	d.noted()
	d.roundTrip()
	var b strings.Builder
	for _, a := range actions {
		b.WriteString(text(a) + "\n")
	}
	return b.String()
}

// roundTrip replaces the core by its restored state, through JSON, every time:
// whatever a next master would not know, the scripts then show.
func (d *driver) roundTrip() {
	d.t.Helper()
	before := d.c.State()
	d.whole(before)
	data, err := json.Marshal(before)
	if err != nil {
		d.t.Fatal(err)
	}
	var s State
	if err := json.Unmarshal(data, &s); err != nil {
		d.t.Fatal(err)
	}
	c, err := Restore(s)
	if err != nil {
		d.t.Fatal(err)
	}
	after, _ := json.Marshal(c.State())
	if diff := cmp.Diff(string(data), string(after)); diff != "" {
		d.t.Fatalf("State, Restore, State differ:\n%s", diff)
	}
	d.c = c
}

// after lets the time pass, stopping at every deadline.
func (d *driver) after(dur time.Duration) string {
	end := d.now.Add(dur)
	var b strings.Builder
	for {
		at, ok := d.c.NextDeadline()
		if !ok || at > end {
			break
		}
		d.now = max(d.now, at)
		out := d.step(Tick{})
		b.WriteString(fmt.Sprintf("+%v\n", dur-end.Sub(d.now)) + out)
	}
	d.now = end
	return b.String()
}

// state shows the slots, workers and handles in a few lines.
func (d *driver) state() string {
	var b strings.Builder
	s := d.c.State()
	for _, p := range s.Pools {
		fmt.Fprintf(&b, "pool %s gen=%d desired=%d ready=%d live=%d gens=%d", p.Name, p.Gen, p.Desired, p.ReadySlots, p.Live, len(p.Gens))
		if p.Rollout != nil {
			fmt.Fprintf(&b, " rollout %d->%d %s", p.Rollout.From, p.Rollout.To, p.Rollout.Phase)
		}
		b.WriteString("\n")
		for _, sl := range p.Slots {
			fmt.Fprintf(&b, "  slot %d gen=%d current=%d next=%d restarts=%d in_row=%d\n", sl.Index, sl.Gen, sl.Current, sl.Next, sl.Restarts, sl.InRow)
		}
	}
	for _, w := range s.Workers {
		fmt.Fprintf(&b, "worker %d %s/%d gen=%d %s holds=%v\n", w.ID, w.Pool, w.Slot, w.Gen, w.State, w.Holds)
	}
	for _, h := range s.Handles {
		fmt.Fprintf(&b, "handle %d %s %s holders=%d backlog=%d\n", h.ID, h.Key, h.State, h.Holders, h.Spec.Backlog)
	}
	return b.String()
}

// text writes an action as the scripts show it.
func text(a Action) string {
	switch a := a.(type) {
	case Spawn:
		return fmt.Sprintf("spawn %d %s/%d gen=%d launch=%d", a.Worker, a.Pool, a.Slot, a.Gen, a.Launch)
	case Send:
		data, _ := json.Marshal(a.Envelope.Body)
		s := fmt.Sprintf("send %d %s %s", a.Worker, a.Envelope.Body.Type(), data)
		if a.Envelope.Re != 0 {
			s += fmt.Sprintf(" re=%d", a.Envelope.Re)
		}
		if a.Handle != 0 {
			s += fmt.Sprintf(" +handle %d", a.Handle)
		}
		if a.Members != nil {
			s += fmt.Sprintf(" members %d", a.Members)
		}
		return s
	case Terminate:
		return fmt.Sprintf("terminate %d", a.Worker)
	case Kill:
		return fmt.Sprintf("kill %d", a.Worker)
	case Bind:
		s := fmt.Sprintf("bind %d %s backlog=%d", a.Handle, keyOf(a.Spec), a.Spec.Backlog)
		if a.Spec.IPv6Only {
			s += " ipv6only"
		}
		if a.Spec.ReadableAll {
			s += " readable"
		}
		if a.Policy != "shared" {
			s += " policy=" + a.Policy
		}
		return s
	case Admit:
		if a.Yes {
			return fmt.Sprintf("admit %d", a.Worker)
		}
		return fmt.Sprintf("bar %d", a.Worker)
	case Withdraw:
		return fmt.Sprintf("withdraw %d handle %d", a.Worker, a.Handle)
	case SetPolicy:
		return fmt.Sprintf("policy %d %s", a.Handle, a.Policy)
	case Relisten:
		return fmt.Sprintf("relisten %d backlog=%d", a.Handle, a.Backlog)
	case Rouse:
		return fmt.Sprintf("rouse %d", a.Worker)
	case Mend:
		return fmt.Sprintf("mend %d", a.Handle)
	case Release:
		return fmt.Sprintf("release %d", a.Handle)
	case Forget:
		return fmt.Sprintf("forget launch %d", a.Launch)
	case Reply:
		if a.Result.Counts != nil {
			data, _ := json.Marshal(a.Result.Counts)
			return fmt.Sprintf("reply %d %s", a.Op, data)
		}
		if a.Result.Error != "" {
			return fmt.Sprintf("reply %d failed: %s", a.Op, a.Result.Error)
		}
		return fmt.Sprintf("reply %d done", a.Op)
	case Quit:
		return fmt.Sprintf("quit %d", a.Code)
	case Changed:
		return "  " + changedText(a)
	}
	return fmt.Sprintf("%T", a)
}

func changedText(a Changed) string {
	var b strings.Builder
	b.WriteString(a.What)
	add := func(key string, v any, on bool) {
		if on {
			fmt.Fprintf(&b, " %s=%v", key, v)
		}
	}
	add("pool", a.Pool, a.Pool != "")
	add("slot", a.Slot, a.Slot >= 0)
	add("worker", a.Worker, a.Worker != 0)
	add("handle", a.Handle, a.Handle != 0)
	add("address", strconv.Quote(a.Address), a.Address != "")
	add("from", a.From, a.From != "")
	add("to", a.To, a.To != "")
	add("attempt", a.Attempt, a.Attempt != 0)
	add("took", a.Took, a.Took != 0 && a.What == WhatHandleMended)
	add("delay", a.Delay.Round(10*time.Millisecond), a.Delay != 0)
	add("cause", strconv.Quote(a.Cause), a.Cause != "")
	add("result", strconv.Quote(a.Result), a.Result != "")
	return b.String()
}

// noted keeps the pieces that a step changed, as a record outside of the process does.
func (d *driver) noted() {
	d.t.Helper()
	if d.pieces == nil {
		d.pieces = map[string][]byte{}
	}
	for _, ref := range d.c.Touched() {
		delete(d.pieces, ref.Name())
		if v := d.c.Piece(ref); v != nil {
			data, err := json.Marshal(v)
			if err != nil {
				d.t.Fatal(err)
			}
			d.pieces[ref.Name()] = data
		}
	}
}

// whole checks that the pieces are the State: each step says all that it changed.
func (d *driver) whole(want State) {
	d.t.Helper()
	if d.pieces == nil {
		return
	}
	s, err := Assemble(d.pieces)
	if err != nil {
		d.t.Fatal(err)
	}
	got, _ := json.Marshal(s)
	if text, _ := json.Marshal(want); !bytes.Equal(got, text) {
		d.t.Fatalf("the pieces differ from the State:\n%s", cmp.Diff(string(text), string(got)))
	}
}
