package main

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/f72e338e/supervisord/bench/load"
	"github.com/f72e338e/supervisord/internal/api"
	"github.com/f72e338e/supervisord/internal/testkit"
)

// misdeed is what a hostile worker does, and what tells of it: an event of its pool with
// this cause.
type misdeed struct {
	order string
	pool  string
	event string // "": none
	cause string
}

var misdeeds = []misdeed{
	{"flood", "bad", "worker.refused", "says more than is read of it"},
	{"flood-long", "bad", "worker.refused", "says more than is read of it"},
	{"garbage", "bad", "worker.killing", "sends garbage over its channel"},
	{"half", "bad", "", ""}, // nobody can know that the rest will not come
	{"endless", "bad", "worker.killing", "a line is too long"},
	{"deaf", "bad", "worker.killing", "does not read its channel"},
	{"files", "bad", "worker.killing", "does not read its channel"},
	{"junk", "bad", "worker.killing", "makes no sense"},
	{"claims", "bad", "worker.killing", "makes no sense"},
	{"names", "bad", "worker.listening", "127.0.0.1:1"},
	{"forge", "victim", "worker.refused", "which is not of this worker"},
}

// theatre is a good pool that serves, and one whose worker does what it is told.
type theatre struct {
	t       testkit.T
	s       scale
	d       *testkit.Daemon
	address string
	orders  *orders
	program string // the hostile one
}

// nodeHostile lets a Node worker do one misdeed after the other, beside a pool that
// serves a steady load. Quiet, the misdeed, and a spinner alternate.
func nodeHostile(t testkit.T, s scale) {
	node := search(t, "node")
	d := testkit.NewWith(t, testkit.PlainProgram(t, "cmd/supervisord"))
	h := &theatre{t: t, s: s, d: d, address: testkit.Address(t), program: testkit.PlainProgram(t, "bench/soak/hostile")}
	h.orders = giveOrders(t, d.Path("orders"))
	cfg := setup{address: h.address, policy: "round_robin", pools: []pool{
		nodePool(t, d, node, h.address),
		{name: "bad", program: h.program, args: []string{h.orders.path}, workers: 1, unbound: true, settings: "protocol = \"node\"\nready = \"notify\"\n" +
			"graceful_timeout = \"500ms\"\nkill_timeout = \"500ms\"\nrestart_delay = \"100ms\"\nrestart_max_delay = \"200ms\"\nmax_restarts = 1000000\n"},
		// Whoever may write to a notify socket, its user's processes, can hold up what the
		// worker says there itself: a shorter time would be judged by chance.
		{name: "victim", program: h.program, args: []string{"alive"}, workers: 1, unbound: true,
			settings: "protocol = \"systemd\"\nready = \"notify\"\nheartbeat_timeout = \"5s\"\n"},
	}}
	d.Configure(cfg.with(""))
	d.Start()
	before := h.ready()
	h.load("first", pick(s, 500*time.Millisecond, 3*time.Second)) // memory that the master needs anyway
	open := steadyFDs(t, d)
	for _, m := range misdeeds {
		h.play(m)
		if now := h.ready(); now != before {
			t.Errorf("%s: other workers are %v, were %v", m.order, now, before)
		}
		sameFDs(t, d, open)
	}
	h.hold()
	h.ready()
	sameFDs(t, d, open)
	d.Stop()
}

// ready waits until the hostile worker waits for orders, and returns the others.
func (h *theatre) ready() (others string) {
	h.t.Helper()
	s := h.d.Await("all pools to be ready again", func(s api.Status) bool {
		return len(testkit.PIDs(s, "bad")) == 1 && len(testkit.PIDs(s, "web")) == 2 && len(testkit.PIDs(s, "victim")) == 1 && h.orders.waiting()
	})
	for _, p := range s.Pools {
		for _, w := range p.Workers {
			if w.Status == "forged" {
				h.t.Errorf("%s/%d has a status that another worker sent", p.Name, w.Slot)
			}
		}
	}
	return fmt.Sprint(testkit.PIDs(s, "web"), testkit.PIDs(s, "victim"))
}

// play does a misdeed, in some rounds, and judges it.
func (h *theatre) play(m misdeed) {
	t := h.t
	t.Helper()
	rounds, length := pick(h.s, 1, 5), pick(h.s, 500*time.Millisecond, 1500*time.Millisecond)
	order := m.order
	if m.order == "forge" {
		order += " " + h.notifySocket()
	}
	memory, begun := testkit.RestOf(h.d.PID).PeakRSS, lastEvent(t, h.d)
	var f figures
	for i := 0; i < rounds || h.s.full && i < 3*rounds && f.tooSlow() != ""; i++ {
		if h.s.full {
			f.quiet = append(f.quiet, h.load(quiet, length))
		}
		used, from := h.ticks(), time.Now()
		h.orders.do(order)
		f.deed = append(f.deed, h.load(m.order, length))
		f.asked = max(f.asked, h.ask())
		f.share = float64(h.ticks()-used) / 100 / time.Since(from).Seconds()
		f.told += h.orders.rest()
		h.ready()
		if h.s.full {
			f.control = append(f.control, h.beside(f.share, length))
		}
	}
	f.grown = testkit.RestOf(h.d.PID).PeakRSS - memory
	t.Logf("%-10s %v", m.order, f)
	if f.grown > mostMemory {
		t.Errorf("%s: the master grew by %d KiB", m.order, f.grown>>10)
	}
	if f.asked > mostAsked {
		t.Errorf("%s: a status took %v", m.order, f.asked)
	}
	if m.event != "" && !isTold(t, h.d, m, begun) {
		t.Errorf("%s: no event %s of pool %s says %q", m.order, m.event, m.pool, m.cause)
	}
	if h.s.full && f.tooSlow() != "" {
		t.Errorf("%s: %s", m.order, f.tooSlow())
	}
}

// The other parts of a round.
const (
	quiet   = "quiet"
	control = "control"
)

// load puts a steady load on the good pool, of which nothing may be lost. An answer that
// is late while no misdeed is done says something of the machine only.
func (h *theatre) load(part string, length time.Duration) load.Sample {
	h.t.Helper()
	rate, _ := usualLoad()
	res, err := load.Run(h.t.Context(), load.Plan{Duration: length, IgnoreDrops: amongOthers, Groups: []load.Group{{Name: "new", Target: h.address, Rate: rate}}})
	if err == nil {
		err = res.Err()
	}
	late := res.Failures() > 0 && res.Failures() == res.Failed[load.Late]
	switch {
	case err != nil && late && (part == quiet || part == control):
		h.t.Logf("%s: not judged, the client being at most %v behind: %v", part, res.MaxLag, err)
	case err != nil:
		h.t.Errorf("%s: the client being at most %v behind: %v", part, res.MaxLag, err)
	}
	return res.Sample()
}

// beside puts the same load on it while a process that has nothing to do with the master
// uses so much of a processor.
func (h *theatre) beside(share float64, length time.Duration) load.Sample {
	h.t.Helper()
	cmd := exec.Command(h.program, "spin", strconv.FormatFloat(min(share, 1), 'f', 3, 64))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL} // as a worker, see startByHand
	if err := cmd.Start(); err != nil {
		h.t.Fatalf("%v", err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	return h.load(control, length)
}

// ask is how long the master takes to say how it is.
func (h *theatre) ask() time.Duration {
	h.t.Helper()
	begun := time.Now()
	h.d.Status()
	return time.Since(begun)
}

// ticks is what the hostile workers have used so far.
func (h *theatre) ticks() int64 {
	h.t.Helper()
	var living []int
	for _, p := range h.d.Status().Pools {
		for _, w := range p.Workers {
			if p.Name == "bad" && w.PID != nil {
				living = append(living, *w.PID)
			}
		}
	}
	return ticksBelow(h.d.PID, living...)
}

// notifySocket is where the victim speaks to the master.
func (h *theatre) notifySocket() string {
	h.t.Helper()
	for _, pid := range testkit.PIDs(h.d.Status(), "victim") {
		env, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		for _, kv := range strings.Split(string(env), "\x00") {
			if path, ok := strings.CutPrefix(kv, "NOTIFY_SOCKET="); ok {
				return path
			}
		}
	}
	h.t.Fatalf("the victim has no notify socket")
	return ""
}

// hold lets the hostile worker listen where the others do, and acknowledge nothing. As
// with Node's own primary one connection waits for it, and goes to another when it is
// dead; nobody else notices.
func (h *theatre) hold() {
	t := h.t
	t.Helper()
	length := pick(h.s, 1500*time.Millisecond, 4*time.Second)
	rate, _ := usualLoad()
	tr := startLoad(t, load.Group{Name: "new", Target: h.address, Rate: rate})
	h.orders.do("hold " + h.address)
	tr.goOn(length)
	told := h.orders.rest()
	tr.goOn(500 * time.Millisecond)
	res := tr.stop()
	for _, e := range res.Examples {
		if e.Kind != load.Late {
			t.Errorf("hold: %v", e)
		}
	}
	t.Logf("hold: %d of %d requests waited for the worker that held them, and %d workers did", res.Failures(), res.Begun, told)
	if res.Failures() > told {
		t.Errorf("hold: %d requests were held up", res.Failures())
	}
	if res.Failures() == 0 {
		t.Errorf("hold: the worker was offered nothing")
	}
}
