package dispatch

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// FuzzDispatcher drives a dispatcher with real sockets by a string of bytes: the
// first three choose the setting, and each further pair is an operation of a world
// and its argument. After every operation the world looks whether anything is in
// two places or nowhere; at the end, whether every client was served by nobody but
// the one that accepted it, and whether a descriptor is left.
func FuzzDispatcher(f *testing.F) {
	for _, seed := range seeds {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, script []byte) { play(t, script) })
}

// TestRandomScripts plays scripts that chance wrote, with more operations that
// move connections than the fuzzer finds in a short time.
func TestRandomScripts(t *testing.T) {
	often := []byte{opJoin, opConnect, opCrowd, opCrowd, opRead, opRead, opRead, opLate, opStarve, opClose}
	for seed := range uint64(100) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 0))
			script := []byte{byte(seed % 5), byte(seed), byte(r.IntN(16)), opJoin, byte(r.IntN(256))}
			for range maxOps {
				op := byte(r.IntN(len(ops)))
				if r.IntN(2) == 0 {
					op = often[r.IntN(len(often))]
				}
				script = append(script, op, byte(r.IntN(256)))
			}
			play(t, script)
			if t.Failed() {
				t.Logf("script %v", script)
			}
		})
	}
}

// maxOps is how many operations of a script are played.
const maxOps = 100

func play(t *testing.T, script []byte) {
	if len(script) < 3 {
		return
	}
	w := newWorld(t, script[0], script[1], script[2])
	script = script[3:]
	for i := 0; i+1 < len(script) && i < 2*maxOps; i += 2 {
		ops[int(script[i])%len(ops)].do(w, int(script[i+1]))
		w.check()
	}
	w.end()
}

// ops are the operations, by number. Where a member, handle or client is chosen,
// it is by the argument, among those that there are.
var ops = []struct {
	name string
	do   func(*world, int)
}{
	opJoin:    {"join", (*world).join},
	opConnect: {"connect", (*world).connect},
	opCrowd:   {"crowd", (*world).crowd},
	opRead:    {"read", (*world).read},
	opFull:    {"full", (*world).filled},
	opLate:    {"late", (*world).late},
	opRoom:    {"room", (*world).room},
	opGarbage: {"garbage", (*world).garbage},
	opStrange: {"strange", (*world).strange},
	opDie:     {"die", (*world).die},
	opLeave:   {"leave", (*world).leave},
	opAdmit:   {"admit", (*world).admit},
	opPolicy:  {"policy", (*world).policy},
	opPage:    {"page", (*world).writePage},
	opHangUp:  {"hang up", (*world).hangUp},
	opRemove:  {"remove", (*world).remove},
	opFiles:   {"files", (*world).files},
	opRush:    {"rush", (*world).rush},
	opPassing: {"passing", (*world).pass},
	opClose:   {"close", (*world).closeOne},
	opStarve:  {"starve", (*world).starve},
}

const (
	opJoin = iota
	opConnect
	opCrowd
	opRead
	opFull
	opLate
	opRoom
	opGarbage
	opStrange
	opDie
	opLeave
	opAdmit
	opPolicy
	opPage
	opHangUp
	opRemove
	opFiles
	opRush
	opPassing
	opClose
	opStarve
)

// seeds are the cases that somebody thought of. Setting: kind of socket, policy,
// batch.
var seeds = [][]byte{
	{0, 0, 0},
	// Two members, a crowd, one reads and one dies with what it has not read.
	{0, 0, 3, opJoin, 0, opJoin, 2, opCrowd, 9, opRead, 0, opDie, 1, opRead, 0, opLeave, 1, opRead, 0},
	// Dies with what it has read and with what it has not.
	{0, 0, 15, opJoin, 0, opJoin, 2, opCrowd, 40, opRead, 0, opCrowd, 9, opDie, 0, opLeave, 0, opRead, 0},
	// Everybody is full, nothing is lost, then there is room.
	{0, 1, 2, opJoin, 0, opJoin, 2, opCrowd, 4, opFull, 0, opFull, 1, opRoom, 0, opRead, 0, opRead, 0},
	// One reads late: another gets it, and it finds nothing.
	{0, 0, 3, opJoin, 0, opJoin, 2, opConnect, 0, opConnect, 0, opRead, 1, opLate, 0, opRead, 1, opConnect, 0, opRead, 0, opConnect, 0, opRead, 0},
	// All are late, and then one reads.
	{0, 0, 1, opJoin, 0, opJoin, 2, opCrowd, 9, opLate, 0, opRead, 0, opLate, 0, opRead, 0, opRead, 1, opRead, 1},
	// Late, and dead with a message without connections.
	{0, 0, 1, opJoin, 0, opJoin, 2, opCrowd, 3, opRead, 1, opLate, 0, opDie, 0, opRead, 1, opLate, 0, opLeave, 0, opRead, 0},
	// Garbage: what was read stays, the rest goes to another.
	{0, 0, 3, opJoin, 0, opJoin, 2, opCrowd, 8, opRead, 0, opGarbage, 8, opRead, 0, opRead, 1},
	// Messages of the other side, an end of writing.
	{0, 0, 3, opJoin, 0, opJoin, 2, opJoin, 4, opCrowd, 12, opRead, 0, opStrange, 0, opRead, 0, opStrange, 4, opStrange, 13, opRead, 0},
	// Told to go with a message unread; admitted again.
	{0, 2, 1, opJoin, 0, opConnect, 0, opAdmit, 0, opConnect, 0, opRead, 0, opAdmit, 1, opRead, 0, opJoin, 2, opCrowd, 3, opAdmit, 0, opRead, 1},
	// Counts that are absurd, under least_connections.
	{0, 1, 0, opJoin, 0, opJoin, 2, opPage, 0, opPage, 5, opCrowd, 6, opPage, 9, opRead, 0, opPage, 12, opConnect, 0},
	// A handle goes while its connections are everywhere.
	{0, 0, 3, opJoin, 0, opJoin, 1, opCrowd, 9, opRead, 0, opRemove, 0, opConnect, 1, opCrowd, 3, opRead, 1},
	// Nobody is there; clients hang up; then somebody comes.
	{0, 0, 1, opCrowd, 9, opHangUp, 0, opHangUp, 3, opJoin, 0, opRead, 0, opRead, 0},
	// Descriptors where there are none to be.
	{0, 0, 3, opJoin, 0, opJoin, 2, opCrowd, 8, opRead, 0, opFiles, 0, opFiles, 7, opRead, 0},
	// The policies in turn, over TCP.
	{1, 2, 3, opJoin, 0, opJoin, 2, opCrowd, 8, opPolicy, 0, opCrowd, 8, opPolicy, 1, opRead, 0, opRead, 1, opPolicy, 2, opCrowd, 5},
	// Clients come and a member leaves, and the dispatcher sees both at once.
	{0, 0, 7, opJoin, 0, opJoin, 2, opRush, 8, opRead, 0, opRush, 9, opRead, 0},
	// A worker passes on what it reads: to another, and when it is alone to nobody.
	{0, 1, 3, opJoin, 0, opPassing, 1, opCrowd, 9, opRead, 0, opJoin, 2, opRead, 1, opLate, 0, opRead, 0, opLeave, 1, opJoin, 4, opRead, 1},
	// As many as it may have; it closes one, and then gets the one that waits.
	{0, 1, 3, opJoin, 32, opCrowd, 12, opRead, 0, opClose, 0, opRead, 0, opJoin, 34, opRead, 1, opAdmit, 0, opClose, 0, opRead, 0},
	// A worker goes, is full, is late or leaves while no descriptor is left for what it has not read.
	{0, 0, 3, opJoin, 0, opJoin, 2, opCrowd, 8, opStarve, 0, opRead, 0, opStarve, 1, opRead, 1, opStarve, 3, opStarve, 2, opRead, 0},
	// The same worker comes again on the same handle, and leaves with both.
	{0, 0, 3, opJoin, 0, opJoin, 128, opCrowd, 9, opRead, 0, opLeave, 0, opRead, 0},
}
