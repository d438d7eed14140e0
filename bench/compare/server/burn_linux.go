package main

import (
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// slice is how many rounds of a loop are run between two looks at the clock: some
// ten microseconds.
const slice = 20_000

// burn uses d of CPU time, however long that takes. The goroutine may be moved to
// another thread at any time: a slice then counts with what passed on the wall, at
// most. It is not locked to its thread, because a locked goroutine is scheduled in
// another way than those of real programs.
func burn(d time.Duration) {
	for spent := time.Duration(0); spent < d; {
		wall, cpu := time.Now(), threadTime()
		sink.Store(work(slice))
		spent += min(max(threadTime()-cpu, 0), time.Since(wall))
	}
}

// sink is what the compiler cannot do without the work for.
var sink atomic.Uint64

// work is what takes time.
func work(n int) (x uint64) {
	for i := range n {
		x = x*6364136223846793005 + uint64(i)
	}
	return x
}

// threadTime is the CPU time of this thread. A raw system call: it does not block,
// and the Go scheduler should see a program that computes.
func threadTime() time.Duration {
	var t unix.Timespec
	_, _, _ = unix.RawSyscall(unix.SYS_CLOCK_GETTIME, unix.CLOCK_THREAD_CPUTIME_ID, uintptr(unsafe.Pointer(&t)), 0)
	return time.Duration(t.Nano())
}
