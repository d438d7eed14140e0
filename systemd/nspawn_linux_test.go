package systemd_test

import (
	"bufio"
	"context"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestUnderSystemd boots real systemd as PID 1 of a container over an overlay of
// this system's root, and lets testdata/nspawn/check.sh judge the daemon there.
func TestUnderSystemd(t *testing.T) {
	if testing.Short() {
		t.Skip("boots a container: not with -short")
	}
	if os.Getuid() != 0 {
		t.Skip("needs root, to mount an overlay and boot a container")
	}
	nspawn, err := exec.LookPath("systemd-nspawn")
	if err != nil {
		t.Skip("needs systemd-nspawn (package systemd-container)")
	}
	dir := t.TempDir()
	merged := overlay(t, dir)
	install(t, merged)
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, nspawn, "--register=no", "--keep-unit", "-D", merged, "--boot", "--private-network", "--quiet")
	console, err := cmd.CombinedOutput()
	journal, _ := os.ReadFile(filepath.Join(merged, "opt/test/journal"))
	results, rerr := os.ReadFile(filepath.Join(merged, "opt/test/log"))
	if rerr != nil {
		t.Fatalf("the container left no result: %v (boot: %v)\n%s", rerr, err, console)
	}
	judge(t, string(results), string(journal))
}

func judge(t *testing.T, results, journal string) {
	ended, n := false, 0
	sc := bufio.NewScanner(strings.NewReader(results))
	for sc.Scan() {
		line := sc.Text()
		switch {
		case strings.HasPrefix(line, "ok "):
			n++
			t.Log(line)
		case strings.HasPrefix(line, "FAILED "):
			t.Error(line)
		case line == "end":
			ended = true
		default:
			t.Log(line)
		}
	}
	if !ended || n < 15 {
		t.Errorf("only %d checks passed, and the script came to its end: %v", n, ended)
	}
	if t.Failed() {
		t.Logf("journal of the daemon:\n%s", journal)
	}
}

// overlay mounts the system's root with everything that is written kept below dir.
func overlay(t *testing.T, dir string) string {
	t.Helper()
	// An overlay cannot have an overlay as its upper layer, as in many containers:
	// a tmpfs always works.
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=2g"); err != nil {
		t.Skipf("cannot mount a tmpfs: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	for _, d := range []string{"upper", "work", "merged"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	merged := filepath.Join(dir, "merged")
	opts := "lowerdir=/,upperdir=" + filepath.Join(dir, "upper") + ",workdir=" + filepath.Join(dir, "work")
	if err := unix.Mount("overlay", merged, "overlay", 0, opts); err != nil {
		t.Skipf("cannot mount an overlay: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(merged, unix.MNT_DETACH) })
	return merged
}

// install puts binaries, units and the script into the container.
func install(t *testing.T, root string) {
	t.Helper()
	test := filepath.Join(root, "opt/test")
	units := filepath.Join(root, "etc/systemd/system")
	if err := os.MkdirAll(test, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"supervisord", "worker"} {
		build := exec.Command("go", "build", "-o", filepath.Join(test, name), "github.com/f72e338e/supervisord/cmd/"+name)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", name, err, out)
		}
	}
	err := filepath.WalkDir("testdata/nspawn", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		to := filepath.Join(test, d.Name())
		if ext := filepath.Ext(path); ext == ".service" || ext == ".socket" {
			to = filepath.Join(units, d.Name())
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(to, data, 0o755)
	})
	if err != nil {
		t.Fatal(err)
	}
	wants := filepath.Join(units, "multi-user.target.wants")
	if err := os.MkdirAll(wants, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/systemd/system/check.service", filepath.Join(wants, "check.service")); err != nil {
		t.Fatal(err)
	}
}
