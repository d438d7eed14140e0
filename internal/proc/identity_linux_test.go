package proc

import (
	"os"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/fdpass"
)

const nobody = 65534

func TestUser(t *testing.T) {
	needRoot(t)
	l := me("report")
	l.Command[0] = publicBinary(t)
	l.UID, l.GID = nobody, nobody
	r, _ := run(t, l)
	if r.UID != nobody || r.EUID != nobody || r.GID != nobody || len(r.Groups) > 1 || (len(r.Groups) == 1 && r.Groups[0] != nobody) {
		t.Errorf("%+v", r)
	}
	for _, set := range []string{"CapPrm", "CapEff", "CapAmb", "CapInh"} {
		if r.Status[set] != "0000000000000000" {
			t.Errorf("%s %s", set, r.Status[set])
		}
	}
	l.Groups = []int{7, 8}
	r, _ = run(t, l)
	slices.Sort(r.Groups)
	if !slices.Equal(r.Groups, l.Groups) {
		t.Errorf("groups %v", r.Groups)
	}
}

// A pinned executable and directory work for a user that could not open them.
func TestPinnedForAnotherUser(t *testing.T) {
	needRoot(t)
	path := publicBinary(t)
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	l := me("report")
	l.Exec, l.UID, l.GID, l.Dir = fdpass.NewFile(fd), nobody, nobody, "/"
	defer l.Exec.Close()
	if r, _ := run(t, l); r.UID != nobody {
		t.Errorf("%+v", r)
	}
}

func TestCapabilities(t *testing.T) {
	needRoot(t)
	l := me("report")
	l.Command[0] = publicBinary(t)
	l.UID, l.GID, l.Capabilities = nobody, nobody, []string{"CAP_NET_BIND_SERVICE", "sys_nice"}
	for _, l.NoNewPrivs = range []bool{false, true} {
		r, _ := run(t, l)
		for _, set := range []string{"CapPrm", "CapEff", "CapAmb", "CapInh", "CapBnd"} {
			if r.Status[set] != "0000000000800400" {
				t.Errorf("no_new_privs %v: %s %s", l.NoNewPrivs, set, r.Status[set])
			}
		}
	}
	l.Capabilities = []string{} // none, and none to be had
	r, _ := run(t, l)
	for _, set := range []string{"CapPrm", "CapEff", "CapAmb", "CapInh", "CapBnd"} {
		if r.Status[set] != "0000000000000000" {
			t.Errorf("none: %s %s", set, r.Status[set])
		}
	}
	l.UID, l.GID, l.Capabilities = -1, -1, []string{"CAP_CHOWN"} // root with little
	r, _ = run(t, l)
	if r.Status["CapBnd"] != "0000000000000001" || r.Status["CapEff"] != "0000000000000001" || r.Status["CapAmb"] != "0000000000000000" {
		t.Errorf("root: %v", r.Status)
	}
}

func TestRaisedLimitsAndNegativeNice(t *testing.T) {
	needRoot(t)
	var now unix.Rlimit
	if err := unix.Prlimit(0, unix.RLIMIT_NPROC, nil, &now); err != nil {
		t.Fatal(err)
	}
	limit := Limit{unix.RLIMIT_NPROC, 1 << 16, unix.RLIM_INFINITY}
	if err := unix.Prlimit(0, unix.RLIMIT_NPROC, &unix.Rlimit{Cur: now.Cur, Max: unix.RLIM_INFINITY}, nil); err != nil {
		limit = Limit{unix.RLIMIT_NPROC, now.Max / 2, now.Max} // no CAP_SYS_RESOURCE, as in some containers
	} else if err := unix.Prlimit(0, unix.RLIMIT_NPROC, &now, nil); err != nil {
		t.Fatal(err)
	}
	nice, oom := -3, 10
	l := me("report")
	l.Command[0] = publicBinary(t)
	l.UID, l.GID, l.Nice, l.OOMScoreAdj = nobody, nobody, &nice, &oom
	l.Limits = []Limit{limit}
	r, _ := run(t, l)
	if r.Nice != -3 || r.OOM != "10" || r.Limits[unix.RLIMIT_NPROC] != (unix.Rlimit{Cur: limit.Soft, Max: limit.Hard}) {
		t.Errorf("%+v", r)
	}
}

// The directory is entered by the rights of the process.
func TestDirectoryIsJudgedByUser(t *testing.T) {
	needRoot(t)
	dir := publicDir(t)
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	l := keep(Launch{Command: []string{"/bin/true"}, Dir: dir})
	l.UID, l.GID = nobody, nobody
	wantStageError(t, l, StepDirectory, syscall.EACCES, "cannot enter the working directory "+dir+": permission denied")
}

func TestOrdinaryUser(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("needs an ordinary user")
	}
	l := me("report")
	l.UID, l.GID, l.Capabilities = os.Getuid(), os.Getgid(), []string{}
	if r, _ := run(t, l); r.UID != os.Getuid() || r.Status["CapEff"] != "0000000000000000" {
		t.Errorf("%+v", r)
	}
	nice := -3
	l.Nice = &nice
	wantStageError(t, l, StepNice, syscall.EACCES, "cannot set nice to -3: permission denied (the master may only raise it)")
}

func TestCapabilityNumbers(t *testing.T) {
	for name, want := range map[string]int{"CAP_CHOWN": unix.CAP_CHOWN, "net_bind_service": unix.CAP_NET_BIND_SERVICE,
		"CAP_SYS_ADMIN": unix.CAP_SYS_ADMIN, "cap_bpf": unix.CAP_BPF, "CAP_CHECKPOINT_RESTORE": unix.CAP_CHECKPOINT_RESTORE} {
		if n, ok := capabilityNumber(name); !ok || n != want {
			t.Errorf("%s is %d", name, n)
		}
	}
	if KnownCapability("CAP_FLY") || len(capabilities) != unix.CAP_LAST_CAP+1 {
		t.Error("the list of capabilities is wrong")
	}
}
