package core

import (
	"encoding/json"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/google/go-cmp/cmp"

	"github.com/f72e338e/supervisord/internal/proto"
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
}

func newDriver(t testing.TB) *driver {
	return &driver{t: t, c: New(1, 1), now: Time(time.Hour), inv: newInvariants()}
}

func (d *driver) step(ev Event) string {
	d.t.Helper()
	actions := d.c.Step(d.now, ev)
	d.inv.after(d.t, d.c, ev, actions)
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

func (d *driver) configure(td *datadriven.TestData) string {
	d.ops++
	ev := Configured{Op: d.ops, Kind: td.Cmd}
	if td.Cmd == "restart" {
		ev.Config = d.cfg
		for _, a := range td.CmdArgs {
			ev.Force = append(ev.Force, a.Key)
		}
		return d.step(ev)
	}
	for _, line := range strings.Split(strings.TrimSpace(td.Input), "\n") {
		f := strings.Fields(line)
		args := options(f[2:])
		switch f[0] {
		case "listener":
			l := Listener{Name: f[1], Policy: "shared", Spec: endpoint(f[2], f[3])}
			l.Spec.Backlog, _ = strconv.Atoi(args["backlog"])
			l.Exclusive = args["exclusive"]
			ev.Config.Listeners = append(ev.Config.Listeners, l)
		case "pool":
			ev.Config.Pools = append(ev.Config.Pools, poolSpec(f[1], args, uint64(d.ops)*10+uint64(len(ev.Config.Pools))))
		}
	}
	d.cfg = ev.Config
	return d.step(ev)
}

func poolSpec(name string, args map[string]string, launch uint64) PoolSpec {
	dur := func(key string, def time.Duration) time.Duration {
		if v, ok := args[key]; ok {
			def, _ = time.ParseDuration(v)
		}
		return def
	}
	num := func(key string, def int) int {
		if v, ok := args[key]; ok {
			def, _ = strconv.Atoi(v)
		}
		return def
	}
	str := func(key, def string) string {
		if v, ok := args[key]; ok {
			return v
		}
		return def
	}
	p := PoolSpec{
		Name: name, Desired: num("workers", 1), Fingerprint: str("is", "a"), Launch: launch,
		Protocol: str("protocol", ProtocolNative), Ready: str("ready", ReadyNotify), ReadyDelay: dur("delay", 0),
		Confine: proto.Confine{Directory: "/srv/" + name},
		Timeouts: Timeouts{Start: dur("start", time.Minute), MinUptime: dur("min_uptime", 5*time.Second), Graceful: dur("graceful", 30*time.Second),
			Kill: dur("kill", 5*time.Second), Drain: dur("drain", 0), Linger: dur("linger", 30*time.Second)},
		Restart: RestartPolicy{Policy: str("restart", "always"), Delay: dur("restart_delay", 100*time.Millisecond), MaxDelay: 30 * time.Second,
			Max: num("max_restarts", 10), Window: time.Minute, OnLimit: str("on_limit", LimitSlow)},
		Rollout: RolloutPolicy{MaxSurge: num("surge", 1), MaxUnavailable: num("unavailable", 0), Monitor: dur("monitor", 5*time.Second),
			Halt: str("on_failure", "rollback") == "halt", Oldest: str("order", "newest") == "oldest",
			MaxGenerations: num("max_generations", 5), GenerationTimeout: dur("generation_timeout", 10*time.Minute)},
	}
	if l := args["listeners"]; l != "" {
		p.Listeners = strings.Split(l, ",")
	}
	if a, ok := args["allow"]; ok {
		p.AllowSet = true
		for _, s := range strings.Split(a, ",") {
			if r, err := proto.ParseBindRule(s); err == nil {
				p.Allow = append(p.Allow, r)
			}
		}
	}
	return p
}

func options(fields []string) map[string]string {
	m := map[string]string{}
	for _, f := range fields {
		k, v, ok := strings.Cut(f, "=")
		if !ok {
			v = "true"
		}
		m[k] = v
	}
	return m
}

func endpoint(network, address string) proto.SocketSpec {
	s := proto.SocketSpec{Network: network, Address: address}
	if !proto.IsUnix(network) {
		host, port, _ := net.SplitHostPort(address)
		s.Address = host
		s.Port, _ = strconv.Atoi(port)
	}
	return s
}

// line runs one line of a do block.
func (d *driver) line(line string) string {
	f := strings.Fields(line)
	args := options(f[1:])
	var id uint64
	if len(f) > 1 {
		id, _ = strconv.ParseUint(f[1], 10, 64)
	}
	w := proto.WorkerID(id)
	msg := func(m proto.Message, req uint64) string {
		return d.step(Received{Worker: w, Envelope: proto.Envelope{ID: req, Body: m}})
	}
	hello := proto.Hello{Versions: []int{1}}
	req, _ := strconv.ParseUint(args["req"], 10, 64)
	n, _ := strconv.Atoi(args["n"])
	switch f[0] {
	case "after":
		dur, err := time.ParseDuration(f[1])
		if err != nil {
			d.t.Fatal(err)
		}
		return d.after(dur)
	case "spawned":
		return d.step(Spawned{Worker: w, PID: 1000 + int(id)})
	case "spawnfailed":
		return d.step(SpawnFailed{Worker: w, Cause: strings.Join(f[2:], " ")})
	case "stagefailed":
		return d.step(StageFailed{Worker: w, Cause: strings.Join(f[2:], " ")})
	case "up":
		return d.step(Spawned{Worker: w, PID: 1000 + int(id)}) + msg(hello, 1) + msg(proto.Ready{}, 0)
	case "begin":
		return d.step(Spawned{Worker: w, PID: 1000 + int(id)}) + msg(hello, 1)
	case "hello":
		hello.Epoch = uint64(n)
		return msg(hello, 1)
	case "ready":
		return msg(proto.Ready{}, 0)
	case "draining":
		return msg(proto.Draining{Reason: "SIGTERM"}, 0)
	case "listen":
		m := proto.Listen{Name: args["name"], Exclusive: args["exclusive"] != ""}
		if m.Name == "" {
			s := endpoint(f[2], f[3])
			m.Network, m.Address, m.Port = s.Network, s.Address, s.Port
		}
		m.Backlog, _ = strconv.Atoi(args["backlog"])
		if req == 0 {
			req = 7
		}
		return msg(m, req)
	case "close":
		h, _ := strconv.ParseUint(f[2], 10, 64)
		return msg(proto.Close{Handle: proto.HandleID(h)}, 0)
	case "count":
		wk, _ := d.c.Worker(w)
		return d.step(Received{Worker: w, Envelope: proto.Envelope{Re: wk.Asked, Body: proto.Counts{Connections: int64(n)}}})
	case "connections":
		return msg(proto.Connections{}, 9)
	case "exited":
		code, _ := strconv.Atoi(args["code"])
		return d.step(Exited{Worker: w, Exit: Exit{Known: true, Code: code, Signal: args["signal"]}})
	case "linkclosed":
		return d.step(LinkClosed{w})
	case "linkfull":
		return d.step(LinkFull{w})
	case "bound":
		h, _ := d.c.Handle(proto.HandleID(id))
		addr := h.Spec.Address
		if !proto.IsUnix(h.Spec.Network) {
			port := h.Spec.Port
			if port == 0 {
				port = 40000 + int(id)
			}
			addr = proto.HostPort(h.Spec.Address, port)
		}
		return d.step(BoundHandle{Handle: h.ID, Bound: proto.Bound{Address: addr, Backlog: h.Spec.Backlog}})
	case "bindfailed":
		return d.step(BindFailed{Handle: proto.HandleID(id), Error: proto.Error{Code: f[2], Errno: 98, Message: "cannot bind: " + f[2]}})
	case "scale":
		d.ops++
		return d.step(ScaleAsked{Op: d.ops, Pool: f[1], N: n})
	case "stop":
		d.ops++
		return d.step(StopAsked{Op: d.ops, Fast: args["fast"] != ""})
	case "counts":
		d.ops++
		return d.step(CountsAsked{Op: d.ops, Pool: args["pool"]})
	}
	d.t.Fatalf("unknown line %q", line)
	return ""
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
		return s
	case Terminate:
		return fmt.Sprintf("terminate %d", a.Worker)
	case Kill:
		return fmt.Sprintf("kill %d", a.Worker)
	case Bind:
		return fmt.Sprintf("bind %d %s backlog=%d", a.Handle, keyOf(a.Spec), a.Spec.Backlog)
	case Relisten:
		return fmt.Sprintf("relisten %d backlog=%d", a.Handle, a.Backlog)
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
	add("delay", a.Delay.Round(10*time.Millisecond), a.Delay != 0)
	add("cause", strconv.Quote(a.Cause), a.Cause != "")
	add("result", strconv.Quote(a.Result), a.Result != "")
	return b.String()
}
