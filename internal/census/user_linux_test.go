package census

import (
	"bytes"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// TestOrdinaryUser: all of this, for the processes of our own user, without any
// privilege.
func TestOrdinaryUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to become another user")
	}
	// The directory of this binary may be closed to others, the link in /proc is not.
	cmd := exec.Command("/proc/self/exe", "-test.v")
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "GORACE=atexit_sleep_ms=0"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"TestTrees", "TestAccepted", "TestShared", "TestZombie", "TestUnreadable", "TestAcceptingGo"} {
		if !bytes.Contains(out, []byte("--- PASS: "+want+" ")) {
			t.Errorf("%s did not pass as an ordinary user:\n%s", want, out)
		}
	}
}
