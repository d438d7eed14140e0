//go:build linux

package keeper

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// forwarded are the signals that a master knows, see docs/commands.md.
var forwarded = []os.Signal{unix.SIGHUP, unix.SIGTERM, unix.SIGINT, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2, unix.SIGTTIN, unix.SIGTTOU, unix.SIGWINCH}

// signaled takes a signal that came to the keeper.
func (k *keeper) signaled(sig os.Signal) {
	if sig == unix.SIGCHLD {
		k.reap()
		return
	}
	k.pending = append(k.pending, sig)
	switch {
	case k.heard:
		k.pass()
	case k.pid == 0 && isStop(sig):
		k.startAt = time.Now() // nobody else can drain the workers
	case k.hearsBy.IsZero():
		k.hearsBy = time.Now().Add(deaf)
	}
}

func isStop(sig os.Signal) bool {
	return sig == unix.SIGTERM || sig == unix.SIGINT || sig == unix.SIGQUIT
}

// pass sends the master what has come for it.
func (k *keeper) pass() {
	for _, sig := range k.pending {
		_ = unix.Kill(k.pid, sig.(unix.Signal))
		if isStop(sig) && !k.stopping {
			k.asked = append(k.asked, sig)
		}
	}
	k.pending, k.hearsBy = nil, time.Time{}
}

// abandon tells every child to end.
func (k *keeper) abandon() {
	lists, _ := filepath.Glob("/proc/self/task/*/children")
	for _, list := range lists {
		text, _ := os.ReadFile(list)
		for _, field := range strings.Fields(string(text)) {
			if pid, err := strconv.Atoi(field); err == nil {
				_ = unix.Kill(pid, unix.SIGTERM)
			}
		}
	}
}
