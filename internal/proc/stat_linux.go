package proc

import (
	"bytes"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// ticks is the unit of times in /proc: USER_HZ, 100 on every architecture that Go
// runs on.
const ticks = 100

// Stat reads what /proc/PID/stat (proc_pid_stat(5)) says of one process:
// resident memory, CPU time of the process itself in seconds, the state letter
// ('R', 'S', 'D', 'T' for stopped, 'Z') and the start time in clock ticks since
// boot, which with the number identifies a process. Errors: ESRCH when it is
// gone; what reading gives (hidepid).
func Stat(pid int) (rssBytes uint64, cpuSeconds float64, state byte, startTime uint64, err error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		if os.IsNotExist(err) {
			err = unix.ESRCH
		}
		return 0, 0, 0, 0, err
	}
	return parseStat(text)
}

func parseStat(text []byte) (rssBytes uint64, cpuSeconds float64, state byte, startTime uint64, err error) {
	// The name, in parentheses, may hold anything, parentheses and blanks too.
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	if len(fields) < 22 || len(fields[0]) != 1 {
		return 0, 0, 0, 0, fmt.Errorf("/proc/PID/stat: not understood: %.80q", text)
	}
	field := func(n int) uint64 { // numbered as in proc_pid_stat(5)
		v, perr := strconv.ParseUint(string(fields[n-3]), 10, 64)
		if perr != nil && err == nil {
			err = fmt.Errorf("/proc/PID/stat: field %d: %w", n, perr)
		}
		return v
	}
	cpu := field(14) + field(15)
	rss, start := field(24), field(22)
	return rss * uint64(os.Getpagesize()), float64(cpu) / ticks, fields[0][0], start, err
}
