package main

import (
	"syscall"
	"testing"

	"github.com/f72e338e/supervisord/internal/api"
	"github.com/f72e338e/supervisord/internal/testkit"
)

// TestHeartbeat: a worker that is stopped is replaced, one that idles is not.
func TestHeartbeat(t *testing.T) {
	t.Parallel()
	d := start(t, web{address: testkit.Address(t), workers: 2, pool: "heartbeat_timeout = \"1s\"\nkill_timeout = \"100ms\""})
	before := testkit.PIDs(d.Status(), "web")
	if err := syscall.Kill(before[0], syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	d.WaitLog("showed no life for 1s")
	after := testkit.PIDs(d.Await("another is there", func(s api.Status) bool {
		pids := testkit.PIDs(s, "web")
		return s.Pools[0].Ready == 2 && pids[0] != before[0]
	}), "web")
	if after[1] != before[1] {
		t.Error("the one that idles was replaced, too")
	}
	d.Stop()
}
