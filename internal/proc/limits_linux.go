package proc

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// policies are those that need no priority.
var policies = map[string]uint32{"other": unix.SCHED_NORMAL, "batch": unix.SCHED_BATCH, "idle": unix.SCHED_IDLE}

// setScheduler changes the policy, if asked to, and the slice, if it is not 0. What
// else sched_setattr(2) sets stays as it is: the nice value.
func setScheduler(change bool, policy uint32, slice time.Duration) error {
	attr, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		return err
	}
	if change {
		attr.Policy = policy
	}
	if slice != 0 {
		attr.Runtime = uint64(slice)
	}
	attr.Flags = 0
	return unix.SchedSetAttr(0, attr, 0)
}

var resources = map[int]string{
	unix.RLIMIT_AS: "as", unix.RLIMIT_CORE: "core", unix.RLIMIT_CPU: "cpu", unix.RLIMIT_DATA: "data",
	unix.RLIMIT_FSIZE: "fsize", unix.RLIMIT_LOCKS: "locks", unix.RLIMIT_MEMLOCK: "memlock",
	unix.RLIMIT_MSGQUEUE: "msgqueue", unix.RLIMIT_NICE: "nice", unix.RLIMIT_NOFILE: "nofile",
	unix.RLIMIT_NPROC: "nproc", unix.RLIMIT_RSS: "rss", unix.RLIMIT_RTPRIO: "rtprio",
	unix.RLIMIT_RTTIME: "rttime", unix.RLIMIT_SIGPENDING: "sigpending", unix.RLIMIT_STACK: "stack",
}

// raiseLimits raises the hard limits, for which the master's rights are needed.
// The limits themselves are set last (lowerLimits): the stage is a Go program,
// and one of a few megabytes or of no further thread would end it.
func (s *stage) raiseLimits() *StageError {
	for _, l := range s.Limits {
		var now unix.Rlimit
		if err := unix.Prlimit(0, l.Resource, nil, &now); err != nil {
			return limitFailure(l, err, "")
		}
		if l.Hard <= now.Max {
			continue
		}
		if err := unix.Prlimit(0, l.Resource, &unix.Rlimit{Cur: now.Cur, Max: l.Hard}, nil); err != nil {
			return limitFailure(l, err, "the hard limit of the master is "+amount(now.Max))
		}
	}
	return nil
}

// lowerLimits sets the limits as they are to be; nobody needs a right for that.
func (s *stage) lowerLimits() *StageError {
	for _, l := range s.Limits {
		if err := unix.Prlimit(0, l.Resource, &unix.Rlimit{Cur: l.Soft, Max: l.Hard}, nil); err != nil {
			return limitFailure(l, err, "")
		}
	}
	return nil
}

func limitFailure(l Limit, err error, hint string) *StageError {
	name := resources[l.Resource]
	if name == "" {
		name = fmt.Sprintf("resource %d", l.Resource)
	}
	return failure(StepLimits, fmt.Sprintf("set the limit %s to %s:%s", name, amount(l.Soft), amount(l.Hard)), err, hint)
}

func amount(v uint64) string {
	if v == unix.RLIM_INFINITY {
		return "unlimited"
	}
	return fmt.Sprint(v)
}
