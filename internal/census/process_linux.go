package census

import (
	"bytes"
	"fmt"
)

// process is what we read of /proc/PID/stat.
type process struct {
	state   byte // 'R', 'S', 'D', 'T', 'Z', ...
	parent  int
	session int
	flags   uint64
	threads int
}

// exiting is PF_EXITING of the kernel's sched.h: memory is given back and
// descriptors soon will be. /proc then shows the process as one of root's.
const exiting = 1 << 2

// ended says whether the thread, the first one of a process, has ended or is about
// to.
func (p process) ended() bool { return p.state == 'Z' || p.state == 'X' || p.flags&exiting != 0 }

// process reads the stat file in the directory of a process or thread. Errors:
// ENOENT or ESRCH when it is gone.
func (r *reader) process(base string) (process, error) {
	text, err := r.small(base + "/stat")
	if err != nil {
		return process{}, err
	}
	return parseStat(text)
}

// hasEnded says whether the thread has ended or is about to: what /proc then refuses
// it refuses to everybody.
func (r *reader) hasEnded(base string) bool {
	p, err := r.process(base)
	return err != nil || p.ended()
}

// parseStat reads the fields 3, 4, 6, 9 and 20 of proc_pid_stat(5).
func parseStat(text []byte) (process, error) {
	// The name, in parentheses, may hold anything, parentheses and blanks too.
	rest := text[bytes.LastIndexByte(text, ')')+1:]
	p := process{}
	field := 2
	for len(rest) > 0 {
		var word []byte
		word, rest, _ = bytes.Cut(rest, []byte{' '})
		if len(word) == 0 {
			continue
		}
		field++
		value, _ := number(word)
		switch field {
		case 3:
			p.state = word[0]
		case 4:
			p.parent = int(value)
		case 6:
			p.session = int(value)
		case 9:
			p.flags = value
		case 20:
			p.threads = int(value)
			return p, nil
		}
	}
	return process{}, fmt.Errorf("/proc/PID/stat: not understood: %.80q", text)
}
