package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/f72e338e/supervisord/internal/testkit"
)

// nodeDifferences are the scenarios that come out in another way than under Node's own
// primary, and why they are to. How is in testdata/node/accepted. docs/node.md tells
// users.
var nodeDifferences = map[string]string{
	"22-backlog-none-last-wins":            "the first backlog holds, as under the other policies: a worker's own listen(2) is undone",
	"32-key-index-desync-bug":              "a listen that failed leaves no trace, as from Node 25 on (nodejs/node#60086)",
	"40-err-unix-stale":                    "a path at which nobody listens any more is taken over",
	"53-rr-queued-closed-with-last-worker": "a connection that a dead worker did not take is closed where nobody is left, and the worker was disconnected",
	"57-rr-kill-during-handoff":            "a connection that a dead worker did not take goes to another",
	"79-unix-modes-none":                   "readableAll and writableAll count under either policy",
	"104-rr-accept-unbounded":              "what no worker takes waits in the kernel, and the backlog bounds it",
	"110-abstract-unix":                    "an abstract name is one, whatever directories worker and master are in",
	"118-disconnect-all-callback-early":    "supervisord stop is done when the last worker has exited, and so is what stands for it in supervised.js",
}

// nodeAsBefore are those in which a later Node does something else than the one that was
// observed, and we do not.
var nodeAsBefore = map[string]string{
	"78-unix-modes-rr-077": "from Node 22 on writableAll takes the owner's other rights away",
}

const (
	nodeAtOnce = 4
	// nodeSlow is how many times slower a scenario is played again that came out wrong:
	// its times are those of a machine that has nothing else to do.
	nodeSlow = 4
	// nodeObserved is the version of Node whose outcomes are in testdata/node/observed.
	nodeObserved = 20
)

// canon is what was observed, by source. Numbers and texts as in JSON.
type canon map[string]any

// nodeScenarios plays scenarios.
type nodeScenarios struct {
	node    string
	version int
	dir     string // scripts, the program, and a directory for each run, for every user
	program string
}

// TestNodeScenarios plays every scenario with Node's own primary and with a supervisord,
// and compares what was observed.
func TestNodeScenarios(t *testing.T) {
	n := newNodeScenarios(t)
	files, err := filepath.Glob("testdata/node/[0-9]*.js")
	if err != nil || len(files) < 50 {
		t.Fatalf("%d scenarios, %v", len(files), err)
	}
	names := make(chan string, len(files))
	for _, file := range files {
		names <- strings.TrimSuffix(filepath.Base(file), ".js")
	}
	close(names)
	for name := range nodeDifferences {
		if !slices.Contains(files, "testdata/node/"+name+".js") {
			t.Errorf("there is no scenario %s", name)
		}
	}
	var players sync.WaitGroup
	for range nodeAtOnce {
		players.Go(func() {
			for name := range names {
				t.Run(name, func(t *testing.T) { n.scenario(t, name) })
			}
		})
	}
	players.Wait()
}

func newNodeScenarios(t *testing.T) *nodeScenarios {
	t.Helper()
	n := &nodeScenarios{}
	n.node, n.version = findNode(t)
	dir, err := os.MkdirTemp("", "sd-") // short: a Unix path has at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	n.dir, n.program = dir, filepath.Join(dir, "supervisord")
	// One scenario runs as another user, who may not get at the checkout or at what was
	// built for the test.
	open := func(path string, err error) {
		if err == nil {
			err = os.Chmod(path, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	open(dir, nil)
	open(n.program, os.Link(testkit.Program(t, "cmd/supervisord"), n.program))
	scripts, _ := filepath.Glob("testdata/node/*.js")
	for _, script := range scripts {
		text, err := os.ReadFile(script)
		if err != nil {
			t.Fatal(err)
		}
		copied := filepath.Join(dir, filepath.Base(script))
		open(copied, os.WriteFile(copied, text, 0o600))
	}
	return n
}

// findNode returns the program node and its version.
func findNode(t *testing.T) (path string, version int) {
	t.Helper()
	path, err := exec.LookPath("node")
	if err != nil {
		t.Skip("node is not installed (20 or later is needed)")
	}
	out, err := exec.Command(path, "--version").Output()
	if err != nil {
		t.Fatal(err)
	}
	major, _, _ := strings.Cut(strings.TrimPrefix(string(out), "v"), ".")
	if version, err = strconv.Atoi(major); err != nil {
		t.Fatalf("node --version: %q", out)
	}
	if version < nodeObserved {
		t.Skipf("node is %s(20 or later is needed)", out)
	}
	return path, version
}

// scenario plays one. What Node's own primary does now is the measure, and with the
// version that was observed it is what was observed.
func (n *nodeScenarios) scenario(t *testing.T, name string) {
	observed := readCanon(t, "testdata/node/observed/"+name+".json", "canon")
	want := n.play(t, name, "", func(got canon) string {
		if n.version != nodeObserved {
			return ""
		}
		return difference(got, observed)
	})
	if nodeAsBefore[name] != "" {
		want = observed
	}
	reason, differs := nodeDifferences[name]
	if !differs {
		n.play(t, name, n.program, func(got canon) string { return difference(got, want) })
		return
	}
	accepted := readCanon(t, "testdata/node/accepted/"+name+".json", "")
	n.play(t, name, n.program, func(got canon) string {
		if d := difference(got, want); d == "" && n.version == nodeObserved {
			return fmt.Sprintf("it comes out as under Node's own primary, and is listed as different: %s", reason)
		}
		return difference(got, accepted)
	})
}

// play plays a scenario with a supervisord, or with Node's own primary if there is none,
// until wrong returns "": slowly, once it has not. Of the two Node is given one try more.
func (n *nodeScenarios) play(t *testing.T, name, program string, wrong func(canon) string) canon {
	t.Helper()
	who, tries := "supervisord", []int{1, nodeSlow}
	if program == "" {
		who, tries = "Node's own primary", append(tries, nodeSlow)
	}
	var problem, stderr string
	for _, slow := range tries {
		got, out := n.run(t, name, program, slow)
		was := problem
		if problem, stderr = wrong(got), out.Stderr; problem == "" {
			if was != "" {
				t.Logf("right only when played slowly, under %s: %s", who, was)
			}
			return got
		}
	}
	t.Fatalf("under %s:%s\n%s", who, problem, stderr)
	return nil
}

// run plays a scenario once.
func (n *nodeScenarios) run(t *testing.T, name, program string, slow int) (canon, testkit.Output) {
	t.Helper()
	dir, err := os.MkdirTemp(n.dir, "")
	if err == nil {
		err = os.Chmod(dir, 0o777)
	}
	if err != nil {
		t.Fatal(err)
	}
	mark := "TMPDIR=" + dir // handed on to the daemon and to workers
	t.Cleanup(func() {
		for _, pid := range testkit.WithVariable(mark) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		_ = os.RemoveAll(dir)
	})
	env := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, mark, "LANG=C.UTF-8", "SLOW=" + strconv.Itoa(slow), "GORACE=atexit_sleep_ms=0"}
	if program != "" {
		env = append(env, "SUPERVISORD="+program)
	}
	// Not in dir: Node's own primary shortens paths below its directory, which shows.
	out := testkit.Exec(t, testkit.Command{Path: n.node, Args: []string{filepath.Join(n.dir, "primary.js"), filepath.Join(n.dir, name+".js")}, Env: env})
	if out.Code != 0 {
		t.Fatalf("%v", out)
	}
	if left := testkit.WithVariable(mark); len(left) > 0 && program != "" {
		t.Errorf("it has ended, and these processes live: %v\n%v", left, out)
	}
	var answer struct{ Canon canon }
	if err := json.Unmarshal([]byte(out.Stdout), &answer); err != nil {
		t.Fatalf("%v\n%v", err, out)
	}
	return answer.Canon, out
}

func readCanon(t *testing.T, path, member string) canon {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var c canon
	if err := json.Unmarshal(text, &c); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	if member != "" {
		return c[member].(map[string]any)
	}
	return c
}

// difference says what is not as it is wanted, "" for nothing. The text "*" is wanted
// where anything is right.
func difference(got, want canon) string {
	var b strings.Builder
	sources := maps.Clone(want)
	maps.Copy(sources, got)
	for _, from := range slices.Sorted(maps.Keys(sources)) {
		if g, w := got[from], want[from]; !isLike(g, w) {
			gotText, _ := json.Marshal(g)
			wantText, _ := json.Marshal(w)
			fmt.Fprintf(&b, "\n%s:\n\tgot  %s\n\twant %s", from, gotText, wantText)
		}
	}
	return b.String()
}

func isLike(got, want any) bool {
	switch w := want.(type) {
	case string:
		return w == "*" || got == want
	case []any:
		g, ok := got.([]any)
		return ok && slices.EqualFunc(g, w, isLike)
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok || len(g) != len(w) {
			return false
		}
		for name, v := range w {
			if other, ok := g[name]; !ok || !isLike(other, v) {
				return false
			}
		}
		return true
	}
	return reflect.DeepEqual(got, want)
}
