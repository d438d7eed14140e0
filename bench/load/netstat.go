package load

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"time"
)

// Drops are the kernel's counts of connections that a full accept queue lost,
// for all listeners of the network namespace (/proc/net/netstat, TcpExt).
type Drops struct {
	ListenOverflows int64 `json:"listen_overflows"`
	ListenDrops     int64 `json:"listen_drops"`
}

// ReadDrops reads the counts as they are now.
func ReadDrops() (Drops, error) {
	text, err := os.ReadFile("/proc/net/netstat")
	if err != nil {
		return Drops{}, err
	}
	return parseDrops(string(text))
}

// parseDrops reads pairs of lines: names, then values in the same order.
func parseDrops(text string) (Drops, error) {
	var d Drops
	var names []string
	found := 0
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) == 0 || f[0] != "TcpExt:" {
			continue
		}
		if names == nil {
			names = f
			continue
		}
		for i := 1; i < len(f) && i < len(names); i++ {
			var to *int64
			switch names[i] {
			case "ListenOverflows":
				to = &d.ListenOverflows
			case "ListenDrops":
				to = &d.ListenDrops
			default:
				continue
			}
			n, err := strconv.ParseInt(f[i], 10, 64)
			if err != nil {
				return Drops{}, err
			}
			*to = n
			found++
		}
		break
	}
	if found != 2 {
		return Drops{}, errors.New("cannot read /proc/net/netstat: no ListenOverflows and ListenDrops")
	}
	return d, nil
}

// since returns what was added after before.
func (d Drops) since(before Drops) Drops {
	return Drops{d.ListenOverflows - before.ListenOverflows, d.ListenDrops - before.ListenDrops}
}

// cpuOf returns the CPU time, user and system, of each process that is there.
// proc_pid_stat(5): fields 14 and 15, in ticks of 10 ms.
func cpuOf(pids []int) map[int]time.Duration {
	cpu := make(map[int]time.Duration, len(pids))
	for _, pid := range pids {
		text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		if err != nil {
			continue
		}
		// The name, field 2, may hold spaces and parentheses.
		s := string(text)
		f := strings.Fields(s[strings.LastIndexByte(s, ')')+1:])
		if len(f) < 13 {
			continue
		}
		user, err1 := strconv.ParseInt(f[11], 10, 64)
		system, err2 := strconv.ParseInt(f[12], 10, 64)
		if err1 == nil && err2 == nil {
			cpu[pid] = time.Duration(user+system) * 10 * time.Millisecond
		}
	}
	return cpu
}
