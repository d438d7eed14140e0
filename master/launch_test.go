package master

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/f72e338e/supervisord/config"
	"github.com/f72e338e/supervisord/internal/core"
)

func parsePool(t *testing.T, dir, text string) config.Pool {
	t.Helper()
	cfg, err := config.Parse("test.toml", []byte("[pool.web]\n"+text), dir)
	if err != nil {
		t.Fatal(err)
	}
	return cfg.Pools[0]
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}

// TestGenerationIsPinned: a `current` symlink that is turned and a file that is
// replaced change the fingerprint of what would be started now, and not what a
// generation that exists would start.
func TestGenerationIsPinned(t *testing.T) {
	dir := t.TempDir()
	for _, v := range []string{"v1", "v2"} {
		if err := os.Mkdir(filepath.Join(dir, v), 0o755); err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(dir, v, "app"), "\x7fELF "+v)
	}
	current := filepath.Join(dir, "current")
	turn := func(to string) {
		_ = os.Remove(current)
		if err := os.Symlink(to, current); err != nil {
			t.Fatal(err)
		}
	}
	turn("v1")
	var l launches
	l.init()
	pool := parsePool(t, dir, "command = [\"./app\"]\nworking_directory = \"current\"\n")
	first, err := l.planPool(pool)
	if err != nil {
		t.Fatal(err)
	}
	same, err := l.planPool(pool)
	if err != nil {
		t.Fatal(err)
	}
	if same.Fingerprint != first.Fingerprint {
		t.Error("nothing changed, and the fingerprint did")
	}
	turn("v2")
	second, err := l.planPool(pool)
	if err != nil {
		t.Fatal(err)
	}
	if second.Fingerprint == first.Fingerprint {
		t.Error("the symlink was turned, and the fingerprint is the same")
	}
	order := l.get(first.Launch).order(core.Spawn{Pool: "web"})
	entries, err := os.ReadDir("/proc/self/fd/" + strings.TrimPrefix(order.DirFile.String(), "fd "))
	if err != nil || len(entries) != 1 {
		t.Fatal(err)
	}
	link, _ := os.Readlink("/proc/self/fd/" + strings.TrimPrefix(order.DirFile.String(), "fd "))
	if link != filepath.Join(dir, "v1") {
		t.Errorf("the first generation would start in %s", link)
	}
	if order.Exec == nil {
		t.Error("the path leads to another file, and the first generation would follow it")
	}
	if l.get(second.Launch).order(core.Spawn{Pool: "web"}).Exec != nil {
		t.Error("the path leads to the pinned file, and the descriptor would be used for nothing")
	}
	before := openFiles(t)
	for _, s := range []core.PoolSpec{first, same, second} {
		l.forget(s.Launch)
	}
	if after := openFiles(t); after != before-6 {
		t.Errorf("forgetting three launches closed %d descriptors, want 6", before-after)
	}
}

func TestScriptIsNotPinned(t *testing.T) {
	dir := t.TempDir()
	script := filepath.Join(dir, "app")
	writeFile(t, script, "#!/bin/sh\n")
	var l launches
	l.init()
	spec, err := l.planPool(parsePool(t, dir, "command = [\"./app\"]\n"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.forget(spec.Launch)
	if err := os.Rename(script, script+".old"); err != nil {
		t.Fatal(err)
	}
	writeFile(t, script, "#!/bin/sh\nexit 1\n")
	if l.get(spec.Launch).order(core.Spawn{Pool: "web"}).Exec != nil {
		t.Error("a script would be executed by a descriptor, which its interpreter cannot open")
	}
	again, err := l.planPool(parsePool(t, dir, "command = [\"./app\"]\n"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.forget(again.Launch)
	if again.Fingerprint == spec.Fingerprint {
		t.Error("the script was replaced, and the fingerprint is the same")
	}
}

func TestOrder(t *testing.T) {
	t.Setenv("SECRET_OF_THE_MASTER", "x")
	t.Setenv("LC_TEST", "c")
	var l launches
	l.init()
	pool := parsePool(t, t.TempDir(), `command = ["/bin/echo", "{slot}-{worker}", "{json}"]
env = { PORT = "90{slot}", PATH = "/bin" }
[pool.web.limits]
nofile = 100
`)
	spec, err := l.planPool(pool)
	if err != nil {
		t.Fatal(err)
	}
	defer l.forget(spec.Launch)
	o := l.get(spec.Launch).order(core.Spawn{Worker: 7, Pool: "web", Slot: 3, Gen: 2})
	if !slices.Equal(o.Command, []string{"/bin/echo", "3-7", "{json}"}) {
		t.Errorf("command is %q", o.Command)
	}
	for _, want := range []string{"PORT=903", "SUPERVISORD_POOL=web", "SUPERVISORD_SLOT=3", "SUPERVISORD_WORKER_ID=7", "SUPERVISORD_GENERATION=2", "LC_TEST=c"} {
		if !slices.Contains(o.Env, want) {
			t.Errorf("environment misses %s: %q", want, o.Env)
		}
	}
	if slices.ContainsFunc(o.Env, func(s string) bool { return strings.HasPrefix(s, "SECRET_OF") }) {
		t.Error("the worker gets a variable of the master that nobody named")
	}
	if i := slices.Index(o.Env, "PATH=/bin"); i < 0 || slices.IndexFunc(o.Env[i+1:], func(s string) bool { return strings.HasPrefix(s, "PATH=") }) >= 0 {
		t.Error("the pool's own PATH does not win")
	}
	if len(o.Limits) != 1 || o.Limits[0].Soft != 100 {
		t.Errorf("limits are %+v", o.Limits)
	}
}
