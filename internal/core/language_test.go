package core

import (
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/f72e338e/supervisord/internal/proto"
)

// The language of the scripts: a configuration block, and the lines of a do block.

// configure is a block of
//
//	listener NAME NETWORK ADDRESS [backlog=N] [exclusive=POOL/SLOT]
//	pool NAME [workers=N] [is=FINGERPRINT] [KEY=VALUE ...]
func (d *driver) configure(td *datadriven.TestData) string {
	d.ops++
	ev := Configured{Op: d.ops, Kind: td.Cmd}
	if td.Cmd == "restart" {
		ev.Config = d.cfg
		ev.Config.Pools = slices.Clone(d.cfg.Pools) // with programs resolved anew
		for i := range ev.Config.Pools {
			ev.Config.Pools[i].Launch = uint64(d.ops)*10 + uint64(i)
		}
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
			if p := args["policy"]; p != "" {
				l.Policy = p
			}
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
		Protocol: str("protocol", ProtocolNative), Ready: str("ready", ReadyNotify), ReadyDelay: dur("delay", 0), ReadyOnly: str("ready_only", "") != "",
		Confine: proto.Confine{Directory: "/srv/" + name},
		Timeouts: Timeouts{Start: dur("start", time.Minute), MinUptime: dur("min_uptime", 5*time.Second), Graceful: dur("graceful", 30*time.Second),
			Kill: dur("kill", 5*time.Second), Drain: dur("drain", 0), Linger: dur("linger", 30*time.Second), Heartbeat: dur("heartbeat", 0)},
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
	if v := args["can"]; v != "" {
		hello.Features = strings.Split(v, ",")
	}
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
	case "hello": // hello W [n=EPOCH] [state=S] [holds=1,2] [counts=N]
		hello.Epoch, hello.State = uint64(n), args["state"]
		for _, s := range strings.FieldsFunc(args["holds"], func(r rune) bool { return r == ',' }) {
			h, _ := strconv.ParseUint(s, 10, 64)
			hello.Holds = append(hello.Holds, proto.HandleID(h))
		}
		if v, ok := args["counts"]; ok {
			c, _ := strconv.ParseInt(v, 10, 64)
			hello.Counts = &proto.Counts{Connections: c}
		}
		return msg(hello, max(req, 1))
	case "tookover":
		d.roundTrip()
		return d.step(TookOver{Epoch: id})
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
		m.IPv6Only, m.ReadableAll = args["ipv6only"] != "", args["readable"] != ""
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
		return msg(proto.Connections{}, max(req, 9))
	case "told": // counts that nobody asked for
		return msg(proto.Counts{Connections: int64(n)}, 0)
	case "status":
		return msg(proto.Status{Text: strings.Join(f[2:], " ")}, 0)
	case "exited":
		code, _ := strconv.Atoi(args["code"])
		return d.step(Exited{Worker: w, Exit: Exit{Known: true, Code: code, Signal: args["signal"]}})
	case "notify": // notify W [ready] [stopping] [alive] [broken] [status=TEXT] [extend=TIME]
		ev := Notified{Worker: w, Ready: args["ready"] != "", Stopping: args["stopping"] != "", Alive: args["alive"] != "", Broken: args["broken"] != "", Status: args["status"]}
		ev.Extend, _ = time.ParseDuration(args["extend"])
		return d.step(ev)
	case "accepting":
		return d.step(Accepting{w})
	case "found": // found W n=CONNECTIONS | unknown
		wk, _ := d.c.Worker(w)
		return d.step(Counted{Worker: w, Re: wk.Asked, Connections: int64(n), Unknown: args["unknown"] != ""})
	case "said": // said W message TEXT
		return d.step(Said{Worker: w, What: "worker " + f[2], Text: strings.Join(f[3:], " ")})
	case "pong":
		return msg(proto.Pong{}, 0)
	case "linkclosed":
		return d.step(LinkClosed{w})
	case "linkfull":
		return d.step(LinkBroken{Worker: w, Cause: "does not read its link"})
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
	case "sabotaged": // sabotaged H what=TEXT [shut] [blocking] [member=M] [ago=TIME]
		ev := Sabotaged{Handle: proto.HandleID(id), Shut: args["shut"] != "", Blocking: args["blocking"] != "", What: strings.ReplaceAll(args["what"], "_", " ")}
		ev.Member, _ = strconv.Atoi(args["member"])
		if ago, err := time.ParseDuration(args["ago"]); err == nil {
			ev.Since = d.now.Add(-ago)
		}
		return d.step(ev)
	case "mended": // mended H [anew] [cause=TEXT]
		h, _ := d.c.Handle(proto.HandleID(id))
		return d.step(Mended{Handle: h.ID, Bound: h.Bound, Anew: args["anew"] != "", Cause: args["cause"]})
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
