package dispatch

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// FuzzPeer is like FuzzDispatcher, with workers that have a Peer among the others.
func FuzzPeer(f *testing.F) {
	for _, seed := range peerSeeds {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, script []byte) { playPeers(t, script) })
}

// TestRandomPeers plays scripts that chance wrote.
func TestRandomPeers(t *testing.T) {
	often := []byte{poArrive, poConnect, poCrowd, poCrowd, poHear, poHear, poAccept, poAccept, poServe, poTime, poAcknowledge}
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			script := []byte{byte(seed), byte(r.IntN(16)), poArrive, byte(r.IntN(256))}
			for range maxOps {
				op := byte(r.IntN(len(peerOps)))
				if r.IntN(2) == 0 {
					op = often[r.IntN(len(often))]
				}
				script = append(script, op, byte(r.IntN(256)))
			}
			playPeers(t, script)
			if t.Failed() {
				t.Logf("script %v", script)
			}
		})
	}
}

func playPeers(t *testing.T, script []byte) {
	if len(script) < 2 {
		return
	}
	w := newPeerWorld(t, script[0], script[1])
	script = script[2:]
	for i := 0; i+1 < len(script) && i < 2*maxOps; i += 2 {
		peerOps[int(script[i])%len(peerOps)](w, int(script[i+1]))
		w.check()
	}
	w.end()
}

const (
	poArrive = iota
	poConnect
	poCrowd
	poHear
	poAcknowledge
	poAccept
	poRefuse
	poServe
	poMiss
	poTell
	poDescriptor
	poTalk
	poLie
	poPause
	poResume
	poPassAway
	poShutDown
	poGiveBack
	poComeIn
	poAllow
	poTime
	poRemove
	poPolicy
	poNative
	poRead
	poLate
	poLeave
	poHangUp
)

var peerOps = []func(*peerWorld, int){
	poArrive:      (*peerWorld).arrive,
	poConnect:     func(w *peerWorld, arg int) { w.connect(arg) },
	poCrowd:       func(w *peerWorld, arg int) { w.crowd(arg) },
	poHear:        (*peerWorld).hearOne,
	poAcknowledge: (*peerWorld).acknowledge,
	poAccept:      (*peerWorld).accept,
	poRefuse:      (*peerWorld).refuse,
	poServe:       (*peerWorld).serveAll,
	poMiss:        (*peerWorld).miss,
	poTell:        (*peerWorld).tell,
	poDescriptor:  (*peerWorld).descriptor,
	poTalk:        (*peerWorld).talk,
	poLie:         (*peerWorld).lie,
	poPause:       (*peerWorld).pauses,
	poResume:      (*peerWorld).resume,
	poPassAway:    (*peerWorld).passAway,
	poShutDown:    (*peerWorld).shutDown,
	poGiveBack:    (*peerWorld).giveBack,
	poComeIn:      (*peerWorld).comeIn,
	poAllow:       (*peerWorld).allow,
	poTime:        (*peerWorld).passTime,
	poRemove:      func(w *peerWorld, arg int) { w.remove(arg) },
	poPolicy:      func(w *peerWorld, arg int) { w.policy(arg) },
	poNative:      func(w *peerWorld, arg int) { w.join(arg &^ 128) },
	poRead:        func(w *peerWorld, arg int) { w.read(arg) },
	poLate:        func(w *peerWorld, arg int) { w.late(arg) },
	poLeave:       func(w *peerWorld, arg int) { w.leave(arg) },
	poHangUp:      func(w *peerWorld, arg int) { w.hangUp(arg) },
}

// peerSeeds are the cases that somebody thought of. Setting: policy, batch.
var peerSeeds = [][]byte{
	{0, 0},
	// Two serve what a crowd asks for.
	{0, 0, poArrive, 0, poArrive, 0, poCrowd, 40, poServe, 0, poServe, 1, poServe, 0, poCrowd, 41, poServe, 1, poServe, 0},
	// Dies with what it has read, with what it has not, and with what it has answered.
	{0, 0, poArrive, 0, poCrowd, 9, poHear, 0, poAcknowledge, 0, poHear, 0, poAccept, 0, poArrive, 0, poPassAway, 0, poServe, 0},
	// Refuses, all refuse, time passes.
	{0, 0, poArrive, 0, poArrive, 0, poConnect, 0, poHear, 0, poRefuse, 0, poHear, 1, poRefuse, 1, poTime, 0, poServe, 0, poServe, 1},
	// Misses connections and descriptors, with lines between them.
	{0, 0, poArrive, 0, poTell, 0, poTell, 8, poCrowd, 6, poTell, 0, poHear, 0, poHear, 0, poMiss, 0, poHear, 0, poMiss, 0, poTime, 0, poServe, 0},
	// Gives a handle back with connections before it, comes back, and the handle goes.
	{0, 0, poArrive, 0, poCrowd, 9, poHear, 0, poGiveBack, 0, poComeIn, 0, poAccept, 0, poServe, 0, poCrowd, 9, poHear, 0, poRemove, 0, poServe, 0},
	// Is not heard, and what it says meanwhile.
	{0, 0, poArrive, 0, poPause, 8, poTalk, 0, poCrowd, 8, poHear, 0, poAccept, 0, poPassAway, 0, poArrive, 0, poServe, 0},
	{0, 0, poArrive, 0, poPause, 8, poTalk, 0, poCrowd, 8, poServe, 0, poPause, 0, poResume, 0, poServe, 0},
	// Lies with connections before it.
	{0, 0, poArrive, 0, poArrive, 0, poCrowd, 20, poHear, 0, poLie, 0, poServe, 0, poLie, 8, poArrive, 0, poServe, 0},
	// Shuts down one direction, then the other.
	{0, 0, poArrive, 0, poArrive, 0, poCrowd, 20, poHear, 0, poShutDown, 0, poServe, 0, poShutDown, 9, poServe, 0, poTell, 0},
	// Among workers of the other kind, under each policy.
	{2, 3, poArrive, 0, poNative, 2, poCrowd, 20, poRead, 0, poServe, 0, poLate, 0, poServe, 0, poPolicy, 0, poCrowd, 6, poPolicy, 2, poServe, 0},
	// Sends descriptors, half lines, and is admitted no more.
	{1, 0, poArrive, 0, poDescriptor, 0, poDescriptor, 8, poTalk, 8, poCrowd, 4, poServe, 0, poAllow, 0, poCrowd, 4, poServe, 0, poAllow, 8, poServe, 0},
}
