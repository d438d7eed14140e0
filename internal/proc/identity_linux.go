package proc

import (
	"fmt"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// capabilities in the order of their numbers (linux/capability.h).
var capabilities = strings.Fields(`chown dac_override dac_read_search fowner fsetid kill setgid setuid setpcap
	linux_immutable net_bind_service net_broadcast net_admin net_raw ipc_lock ipc_owner sys_module sys_rawio
	sys_chroot sys_ptrace sys_pacct sys_admin sys_boot sys_nice sys_resource sys_time sys_tty_config mknod lease
	audit_write audit_control setfcap mac_override mac_admin syslog wake_alarm block_suspend audit_read perfmon bpf
	checkpoint_restore`)

// KnownCapability reports whether name is one of capabilities(7): upper or lower
// case, with or without CAP_.
func KnownCapability(name string) bool {
	_, ok := capabilityNumber(name)
	return ok
}

func capabilityNumber(name string) (int, bool) {
	n := slices.Index(capabilities, strings.TrimPrefix(strings.ToLower(name), "cap_"))
	return n, n >= 0
}

// identity changes groups, group and user, in this order, because the last takes
// the right to the others away, and leaves exactly the capabilities asked for.
//
//	bounding set   what no execve(2) can go beyond: limited first, needs CAP_SETPCAP
//	keep_caps      the permitted set outlives the change from root
//	permitted, inheritable, effective   what was asked for
//	ambient        so that the execve of an ordinary binary keeps it
func (s *stage) identity() *StageError {
	var want uint64
	for _, name := range s.Capabilities {
		n, ok := capabilityNumber(name)
		if !ok {
			return failure(StepCapabilities, "grant the capability "+name, unix.EINVAL, "there is none of that name")
		}
		want |= 1 << n
	}
	limited := s.Capabilities != nil
	if limited {
		if err := limitBounding(want); err != nil {
			return failure(StepCapabilities, "limit the capabilities", err, "")
		}
	}
	uid := s.UID
	if uid < 0 {
		uid = unix.Geteuid()
	}
	if limited && want != 0 && uid != 0 {
		if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
			return failure(StepCapabilities, "keep the capabilities", err, "")
		}
	}
	if e := s.changeUser(); e != nil {
		return e
	}
	if !limited {
		return nil
	}
	if err := setCapabilities(want, uid != 0); err != nil {
		return failure(StepCapabilities, "grant the capabilities "+strings.Join(s.Capabilities, " "), err, "the master does not have them all")
	}
	return nil
}

func (s *stage) changeUser() *StageError {
	const hint = "the master does not run as root"
	why := func(err error) string {
		if err == unix.EPERM && unix.Geteuid() != 0 {
			return hint
		}
		return ""
	}
	another := s.UID >= 0 && s.UID != unix.Geteuid()
	if s.Groups != nil || another {
		have, err := unix.Getgroups()
		if err != nil || !sameGroups(have, s.Groups) {
			if err := syscall.Setgroups(s.Groups); err != nil {
				return failure(StepGroups, fmt.Sprintf("set the supplementary groups %v", s.Groups), err, why(err))
			}
		}
	}
	if s.GID >= 0 {
		if err := syscall.Setresgid(s.GID, s.GID, s.GID); err != nil {
			return failure(StepGroup, fmt.Sprintf("change to group %d", s.GID), err, why(err))
		}
	}
	if s.UID >= 0 {
		if err := syscall.Setresuid(s.UID, s.UID, s.UID); err != nil {
			return failure(StepUser, fmt.Sprintf("change to user %d", s.UID), err, why(err))
		}
	}
	return nil
}

func sameGroups(a, b []int) bool {
	a, b = slices.Clone(a), slices.Clone(b)
	slices.Sort(a)
	slices.Sort(b)
	return slices.Equal(slices.Compact(a), slices.Compact(b))
}

// limitBounding drops everything but want from the bounding set. A master without
// CAP_SETPCAP cannot; its workers then are limited by what they are given, and
// only a set-user-ID program gets beyond (see Launch.NoNewPrivs).
func limitBounding(want uint64) error {
	for c := range 64 {
		if want&(1<<c) != 0 {
			continue
		}
		in, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(c), 0, 0, 0)
		if err != nil { // EINVAL: above the kernel's last
			return nil
		}
		if in == 0 {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0); err == unix.EPERM {
			return nil
		} else if err != nil {
			return err
		}
	}
	return nil
}

// setCapabilities sets the sets of this thread. Root gets its permitted set from
// the bounding set at the execve, so only what goes beyond that, the inheritable
// and the ambient set, is cut.
func setCapabilities(want uint64, ordinary bool) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return err
	}
	for i := range data {
		part := uint32(want >> (32 * i))
		data[i].Inheritable &= part
		if ordinary {
			data[i] = unix.CapUserData{Effective: part, Permitted: part, Inheritable: part}
		}
	}
	if err := unix.Capset(&header, &data[0]); err != nil {
		return err
	}
	if !ordinary {
		return nil
	}
	// Lowering permitted and inheritable has lowered ambient (capabilities(7)).
	for c := range 64 {
		if want&(1<<c) == 0 {
			continue
		}
		if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, uintptr(c), 0, 0); err != nil {
			return err
		}
	}
	return nil
}
