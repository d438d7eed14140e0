package core

// WorkerState is where a worker is in its life.
type WorkerState string

// The states. What is public as "draining" is leaving or draining here.
const (
	Forking  WorkerState = "forking"  // asked for; no process yet
	Starting WorkerState = "starting" // the process exists, not ready yet
	Ready    WorkerState = "ready"    // serves
	Unlinked WorkerState = "unlinked" // closed its link; its exit should follow at once
	Leaving  WorkerState = "leaving"  // will be told to drain when drain_delay is over
	Draining WorkerState = "draining" // told to drain; finishes what is open
	Killing  WorkerState = "killing"  // has the stop signal; SIGKILL is next
	Gone     WorkerState = "gone"     // ended; the record goes with it
)

// wevent is what can happen to a worker.
type wevent string

const (
	evSpawned     wevent = "spawned"
	evSpawnFailed wevent = "spawn failed"
	evStageFailed wevent = "stage failed"
	evReady       wevent = "ready"
	evDraining    wevent = "draining" // it says so itself
	evLinkClosed  wevent = "link closed"
	evLinkBroken  wevent = "link broken"
	evDeadline    wevent = "deadline"
	evExited      wevent = "exited"
	evDrain       wevent = "drain" // we want it to drain
	evEnd         wevent = "end"   // we want it to end now
)

var (
	workerStates = []WorkerState{Forking, Starting, Ready, Unlinked, Leaving, Draining, Killing}
	workerEvents = []wevent{evSpawned, evSpawnFailed, evStageFailed, evReady, evDraining, evLinkClosed, evLinkBroken, evDeadline, evExited, evDrain, evEnd}
)

// cell is what happens in one state at one event: what is done, then the state
// that follows. ignore says that nothing is right; impossible that the shell
// broke its contract, which is harmless and worth a test's failure.
type cell struct {
	to   WorkerState
	do   func(c *Core, w *Worker, in input)
	note string // for the diagram
}

// input carries what an event brought.
type input struct {
	cause string
	exit  Exit
}

var (
	ignore     = cell{note: "ignore"}
	impossible = cell{note: "impossible"}
)

// lifecycle is the life of a worker, every cell written. The diagram in
// docs/lifecycle.md is generated from it, and a test fails on a blank cell.
//
//	forking ──spawned──▶ starting ──ready──▶ ready
//	   │                    │                  │ drain
//	   │ spawn failed       │ deadline, end    ▼
//	   ▼                    │              leaving ──deadline──▶ draining
//	  gone ◀──exited── killing ◀──────────deadline, end─────────────┘
var lifecycle map[WorkerState]map[wevent]cell

func init() {
	lifecycle = map[WorkerState]map[wevent]cell{
		Forking: {
			evSpawned:     {Starting, (*Core).workerSpawned, "begin to wait for ready"},
			evSpawnFailed: {Gone, (*Core).workerNotSpawned, "count the failure"},
			evStageFailed: impossible,
			evReady:       impossible,
			evDraining:    impossible,
			evLinkClosed:  ignore, // the fork failed; spawn failed follows
			evLinkBroken:  ignore,
			evDeadline:    impossible,
			evExited:      {Gone, (*Core).workerExited, "count the failure"},
			evDrain:       {Forking, (*Core).wishEnd, "end it once it exists"},
			evEnd:         {Forking, (*Core).wishEnd, "end it once it exists"},
		},
		Starting: {
			evSpawned:     impossible,
			evSpawnFailed: impossible,
			evStageFailed: {Starting, (*Core).stageFailed, "keep the reason; the exit follows"},
			evReady:       {Ready, (*Core).workerReady, "take the slot over"},
			evDraining:    {Draining, (*Core).leaveItself, "count the failure"},
			evLinkClosed:  {Unlinked, (*Core).linkClosed, "wait a moment for its exit"},
			evLinkBroken:  {Killing, (*Core).linkBroken, "count the failure, stop signal"},
			evDeadline:    {Killing, (*Core).startTimeout, "count the failure, stop signal; or ready, where a delay was asked for"},
			evExited:      {Gone, (*Core).workerExited, "count the failure"},
			evDrain:       {Killing, (*Core).beginKilling, "stop signal: it serves nobody yet"},
			evEnd:         {Killing, (*Core).beginKilling, "stop signal"},
		},
		Ready: {
			evSpawned:     impossible,
			evSpawnFailed: impossible,
			evStageFailed: ignore, // an exec that failed after the deadline made it ready
			evReady:       ignore,
			evDraining:    {Draining, (*Core).leaveItself, "replace it"},
			evLinkClosed:  {Unlinked, (*Core).linkClosed, "wait a moment for its exit"},
			evLinkBroken:  {Killing, (*Core).linkBroken, "count the failure, stop signal"},
			evDeadline:    {Killing, (*Core).silent, "ask whether it lives; then count the failure, stop signal"},
			evExited:      {Gone, (*Core).workerExited, "restart by policy"},
			evDrain:       {Leaving, (*Core).beginLeaving, "wait drain_delay"},
			evEnd:         {Killing, (*Core).beginKilling, "stop signal"},
		},
		Unlinked: {
			evSpawned:     impossible,
			evSpawnFailed: impossible,
			evStageFailed: {Unlinked, (*Core).stageFailed, "keep the reason"},
			evReady:       ignore, // read from the link before its end, told after
			evDraining:    ignore,
			evLinkClosed:  ignore,
			evLinkBroken:  ignore,
			evDeadline:    {Killing, (*Core).stillThere, "count the failure, stop signal: it cannot be told anything"},
			evExited:      {Gone, (*Core).workerExited, "restart by policy"},
			evDrain:       {Killing, (*Core).beginKilling, "stop signal"},
			evEnd:         {Killing, (*Core).beginKilling, "stop signal"},
		},
		Leaving: {
			evSpawned:     impossible,
			evSpawnFailed: impossible,
			evStageFailed: ignore,
			evReady:       ignore,
			evDraining:    {Draining, (*Core).drainDeadline, "it knows already"},
			evLinkClosed:  {Draining, (*Core).drainDeadline, "it needs no link any more"},
			evLinkBroken:  {Killing, (*Core).linkBroken, "stop signal"},
			evDeadline:    {Draining, (*Core).tellDrain, "tell it to drain"},
			evExited:      {Gone, (*Core).workerExited, "expected"},
			evDrain:       ignore,
			evEnd:         {Killing, (*Core).beginKilling, "stop signal"},
		},
		Draining: {
			evSpawned:     impossible,
			evSpawnFailed: impossible,
			evStageFailed: ignore,
			evReady:       ignore,
			evDraining:    ignore,
			evLinkClosed:  ignore, // it needs no link any more; the deadline stands
			evLinkBroken:  ignore,
			evDeadline:    {Killing, (*Core).gracefulOver, "stop signal"},
			evExited:      {Gone, (*Core).workerExited, "expected"},
			evDrain:       ignore,
			evEnd:         {Killing, (*Core).beginKilling, "stop signal"},
		},
		Killing: {
			evSpawned:     impossible,
			evSpawnFailed: impossible,
			evStageFailed: {Killing, (*Core).stageFailed, "keep the reason"},
			evReady:       ignore,
			evDraining:    ignore,
			evLinkClosed:  ignore,
			evLinkBroken:  ignore,
			evDeadline:    {Killing, (*Core).killNow, "SIGKILL to its process group, again each time"},
			evExited:      {Gone, (*Core).workerExited, "as its cause says"},
			evDrain:       ignore,
			evEnd:         ignore,
		},
	}
}

func (c *Core) lifeOf(id workerID, ev wevent, in input) {
	if w := c.workers[id]; w != nil {
		c.life(w, ev, in)
	}
}

// life applies the table. The state is set before the function runs, so that
// what the function decides already sees it.
func (c *Core) life(w *Worker, ev wevent, in input) {
	cl := lifecycle[w.State][ev]
	if cl.do == nil {
		return
	}
	if w.State != cl.to {
		w.State = cl.to
		w.Deadline = 0
	}
	c.touch(workerRef(w))
	cl.do(c, w, in)
}
