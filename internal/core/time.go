package core

import "time"

// Time is a reading of the monotonic clock since boot, in nanoseconds
// (CLOCK_MONOTONIC), so that it means the same in the next master. 0 is no time.
type Time int64

// Add returns the time d later.
func (t Time) Add(d time.Duration) Time { return t + Time(d) }

// Sub returns how long t is after u.
func (t Time) Sub(u Time) time.Duration { return time.Duration(t - u) }

// refKind says what a Ref points to.
type refKind uint8

// The kinds of records.
const (
	RefPool refKind = iota + 1
	RefSlot
	RefWorker
	RefHandle
	RefGather
	RefOperation
	RefMaster
	RefChange // the one under way, and those that wait for it
)

// Ref names one record: what a step touched, or what a deadline concerns.
type Ref struct {
	Kind refKind
	Pool string
	ID   uint64 // slot index, worker, handle, gather or operation id
}

// timer is an entry of the deadline heap. The deadline on the record itself
// counts; an entry that does not agree with it is stale and skipped.
type timer struct {
	at  Time
	ref Ref
}

type timers []timer

func (t timers) Len() int           { return len(t) }
func (t timers) Less(i, j int) bool { return t[i].at < t[j].at }
func (t timers) Swap(i, j int)      { t[i], t[j] = t[j], t[i] }
func (t *timers) Push(x any)        { *t = append(*t, x.(timer)) }
func (t *timers) Pop() any {
	old := *t
	last := old[len(old)-1]
	*t = old[:len(old)-1]
	return last
}
