package config

import (
	"io/fs"
	"math"
	"os"
	"path"
	"runtime"
	"strconv"
	"strings"
)

// processors is what workers = "auto" means: the CPU quota of the cgroup, rounded
// up, or the number of processors of the affinity mask when that is less; at least
// 1. It is not GOMAXPROCS, which an environment variable may change and which is
// never below 2 with a quota.
func processors() int {
	return max(1, min(runtime.NumCPU(), quota(os.DirFS("/"))))
}

// quota returns the smallest CPU quota of the cgroup of this process and those
// above it, in whole processors, or MaxInt without one. In a container only its
// own cgroup is visible, at the root. cgroups(7), cgroup-v2.rst "cpu.max".
func quota(root fs.FS) int {
	least := math.MaxInt
	take := func(limit, period string) {
		l, errLimit := strconv.ParseUint(limit, 10, 62)
		p, errPeriod := strconv.ParseUint(period, 10, 62)
		if errLimit == nil && errPeriod == nil && l > 0 && p > 0 {
			least = min(least, int((l-1)/p)+1)
		}
	}
	data, _ := fs.ReadFile(root, "proc/self/cgroup")
	for line := range strings.Lines(string(data)) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) != 3 {
			continue
		}
		controllers, at := ","+fields[1]+",", path.Clean("/"+fields[2])
		for ; ; at = path.Dir(at) {
			if fields[1] == "" {
				if limit, period, ok := strings.Cut(readLine(root, "sys/fs/cgroup", at, "cpu.max"), " "); ok {
					take(limit, period)
				}
			} else if strings.Contains(controllers, ",cpu,") {
				take(readLine(root, "sys/fs/cgroup/cpu", at, "cpu.cfs_quota_us"), readLine(root, "sys/fs/cgroup/cpu", at, "cpu.cfs_period_us"))
			}
			if at == "/" {
				break
			}
		}
	}
	return least
}

func readLine(root fs.FS, elements ...string) string {
	data, _ := fs.ReadFile(root, path.Join(elements...))
	return strings.TrimSpace(string(data))
}
