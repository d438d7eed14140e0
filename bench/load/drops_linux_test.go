package load

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const childEnv = "LOAD_TEST_DROPS_CHILD"

// TestDrops overflows a TCP queue in a network namespace of its own, because the
// counters are those of the namespace and other tests judge them at the same time.
func TestDrops(t *testing.T) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSPC) {
		t.Skipf("cannot make a network namespace: %v (run as root or allow user namespaces)", err)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// dropsChild runs in the namespace and returns the exit code.
func dropsChild() int {
	check := func(err error) {
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
	ctl, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	check(err)
	ifr, err := unix.NewIfreq("lo")
	check(err)
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	check(unix.IoctlIfreq(ctl, unix.SIOCSIFFLAGS, ifr))

	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	check(err)
	check(unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: 8080}))
	check(unix.Listen(fd, 1))
	plan := Plan{Duration: 5 * time.Second, Timeout: 300 * time.Millisecond, Groups: []Group{{Target: "127.0.0.1:8080", Rate: 1000, Count: 10}}}
	for _, ignore := range []bool{false, true} {
		plan.IgnoreDrops = ignore
		r, err := Run(context.Background(), plan)
		check(err)
		told := r.Err() != nil && strings.Contains(r.Err().Error(), "the kernel dropped connections: ListenOverflows +")
		if r.Drops.ListenOverflows < 1 || r.Drops.ListenDrops < 1 || told == ignore || r.Failed[Timeout] != 10 {
			fmt.Printf("ignore %v: drops %+v, failed %v, problems %q\n", ignore, r.Drops, r.Failed, r.Problems)
			return 1
		}
	}
	return 0
}
