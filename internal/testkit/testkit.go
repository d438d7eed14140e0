package testkit

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"time"
)

// T is what a test gives to the kit: *testing.T, or what a program that is no
// test puts in its place.
type T interface {
	Helper()
	Name() string
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any) // does not return
	Skipf(format string, args ...any)  // does not return; for what the machine does not have
	Failed() bool
	Cleanup(func())           // run at the end, the last one first
	Context() context.Context // ends before the first Cleanup runs
}

// Patience is how long the kit waits for what must happen, on a machine that is
// busy with other tests and with a race detector in every process.
const Patience = 30 * time.Second

// askEvery is the interval of Until.
const askEvery = 10 * time.Millisecond

// Until waits for cond, and ends the test when it does not become true within the
// time. what completes the sentence "waited for ...".
func Until(t T, within time.Duration, what string, cond func() bool) {
	t.Helper()
	if !Eventually(t, within, cond) {
		t.Fatalf("waited %v in vain for %s", within, what)
	}
}

// Eventually waits for cond, and returns false when it did not become true within
// the time, or when the test is over.
func Eventually(t T, within time.Duration, cond func() bool) bool {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), within) // also for Cleanup
	defer cancel()
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return cond()
		}
	}
	return true
}

// Port returns a TCP port of 127.0.0.1 that nobody listens on. It lies below the
// range of automatic ports, from which clients take theirs meanwhile.
func Port(t T) int {
	t.Helper()
	for range 1000 {
		port := 10000 + rand.IntN(20000)
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			_ = l.Close()
			return port
		}
	}
	t.Fatalf("no free port found")
	return 0
}

// Address returns 127.0.0.1 with a [Port].
func Address(t T) string {
	t.Helper()
	return fmt.Sprintf("127.0.0.1:%d", Port(t))
}
