//go:build linux

package keeper

import (
	"strings"

	"github.com/f72e338e/supervisord/fdpass"
)

// maxStored bounds the files that are kept, so that a master that goes wrong cannot make
// the keeper fail.
const maxStored = 1 << 16

// stored is a file with its name.
type stored struct {
	name string
	file *fdpass.File
}

// message is what the keeper understands of a notification.
type message struct {
	store, remove, ready, stopping, alive, barrier bool
	name                                           string
	upward                                         []string // fields that are for somebody else, too
}

func parse(data []byte) (m message) {
	for field := range strings.SplitSeq(string(data), "\n") {
		name, value, _ := strings.Cut(field, "=")
		switch {
		case field == "FDSTORE=1":
			m.store = true
		case field == "FDSTOREREMOVE=1":
			m.remove = true
		case field == "BARRIER=1":
			m.barrier = true
		case name == "FDNAME":
			m.name = value
		case name == "FDPOLL", field == "":
		default:
			m.ready = m.ready || field == "READY=1"
			m.stopping = m.stopping || field == "STOPPING=1"
			m.alive = m.alive || field == "WATCHDOG=1"
			m.upward = append(m.upward, field)
		}
	}
	return m
}

// keep adds files under a name, or removes those that have it. It takes the files.
func (k *keeper) keep(m message, files []*fdpass.File) {
	switch {
	case m.remove:
		kept := k.store[:0]
		for _, s := range k.store {
			if s.name == m.name {
				_ = s.file.Close()
			} else {
				kept = append(kept, s)
			}
		}
		clear(k.store[len(kept):])
		k.store = kept
	case m.store && isName(m.name):
		for _, f := range files {
			if len(k.store) >= maxStored {
				k.say("the store is full: %s is not kept", m.name)
				_ = f.Close()
				continue
			}
			k.store = append(k.store, stored{m.name, f})
		}
		return
	}
	fdpass.CloseAll(files) // which ends a barrier
}

// isName: as systemd has it (sd_pid_notify_with_fds(3)).
func isName(s string) bool {
	if s == "" || len(s) > 255 {
		return false
	}
	for _, c := range []byte(s) {
		if c <= ' ' || c >= 0x7f || c == ':' {
			return false
		}
	}
	return true
}
