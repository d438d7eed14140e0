// Package supervisord_test holds what is true of the project as a whole: here,
// who may import whom.
package supervisord_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/f72e338e/supervisord/"

// rule says what a package may import beside the standard library.
type rule struct {
	project []string // our packages
	foreign []string // other modules' packages
	why     string
}

const (
	unix   = "golang.org/x/sys/unix"
	hclog  = "github.com/hashicorp/go-hclog"
	toml   = "github.com/BurntSushi/toml"
	cobra  = "github.com/spf13/cobra"
	procfs = "github.com/prometheus/procfs"
	btree  = "github.com/tidwall/btree"
	ebpf   = "github.com/cilium/ebpf"
)

// imports is the architecture. Arrows run one way: commands know the master, the
// master knows everything below, and nothing below knows who uses it.
//
//	cmd/supervisord ──▶ master ──▶ internal/core ──────────▶ internal/proto
//	                      │ ├────▶ config ─────────────────────▲   ▲   ▲
//	                      │ └────▶ internal/proc, systemd ─▶ fdpass │   │
//	                      └──────▶ internal/link, internal/socket ──┘   │
//	                                  ▲                                 │
//	cmd/worker ──▶ internal/refworker ──▶ worker ───────────────────────┘
//
// A new package gets a row here, with the reason for what it needs. Tests may
// import what they like.
var imports = map[string]rule{
	"internal/proto": {why: "pure data: master, workers and the core share it, so it drags nothing along"},
	"internal/core": {project: []string{"internal/proto"},
		why: "the brain decides and does nothing: without a descriptor, clock or logger it runs on virtual time and its State is all there is (see TestCoreIsPure)"},
	"fdpass": {foreign: []string{unix},
		why: "public, and part of every Go worker: messages with files, knows no message of ours"},
	"internal/dispatch": {project: []string{"fdpass", "internal/nodeipc", "internal/proto"}, foreign: []string{unix},
		why: "hands connections to workers, in the words of Node where the worker is one; knows no process and no configuration"},
	"internal/steer": {project: []string{"fdpass"}, foreign: []string{unix, ebpf, ebpf + "/asm", ebpf + "/btf"},
		why: "steers between SO_REUSEPORT sockets; knows no worker and no message. btf, because the verifier looks at a function apart only when it has a type"},
	"internal/nodeipc": {project: []string{"internal/proto"},
		why: "lines of Node's cluster channel, and the messages that they are for the master: no socket, no process"},
	"internal/link": {project: []string{"fdpass", "internal/proto"},
		why: "the messages of proto over fdpass, nothing more"},
	"internal/socket": {project: []string{"fdpass", "internal/proto"}, foreign: []string{unix},
		why: "binds for the master and for a worker that nobody supervises, so it is part of every Go worker"},
	"internal/socket/owner": {project: []string{"internal/proto"},
		why: "looks up users and groups, for the master alone: apart from internal/socket, so that no worker links it"},
	"worker": {project: []string{"fdpass", "internal/link", "internal/proto", "internal/socket"}, foreign: []string{unix},
		why: "imported by other people's programs: what it needs, they need"},
	"internal/refworker": {project: []string{"worker"},
		why: "shows what a worker needs: the public package only"},
	"cmd/worker": {project: []string{"internal/refworker"}, why: "no logic in a command"},

	"config": {project: []string{"internal/proto"}, foreign: []string{toml},
		why: "schema and validation; does not know who applies it"},
	"systemd": {project: []string{"fdpass"}, foreign: []string{unix},
		why: "public: notify, LISTEN_FDS and the fd store, for any program"},
	"internal/proc": {project: []string{"fdpass"}, foreign: []string{unix, procfs},
		why: "starts, signals and awaits processes; whose they are, the master knows"},
	"internal/record": {project: []string{"fdpass"}, foreign: []string{unix},
		why: "a table that outlives its writer, in memory files; knows nothing of what it holds"},
	"internal/keeper": {project: []string{"fdpass", "systemd"}, foreign: []string{unix},
		why: "the master's parent where there is no systemd: it must not fail, so it links and knows as little as it can"},
	"internal/census": {foreign: []string{unix},
		why: "asks the kernel about processes and connections; knows no worker and no message"},
	"internal/api": {why: "types and client of the control API: a client needs no part of the master"},
	"master": {
		project: []string{"config", "fdpass", "internal/api", "internal/census", "internal/core", "internal/dispatch", "internal/link", "internal/nodeipc",
			"internal/proc", "internal/proto", "internal/record", "internal/socket", "internal/socket/owner", "internal/steer", "systemd"},
		foreign: []string{unix, hclog, btree, procfs},
		why:     "the shell carries out what the core decides: it alone knows all parts, and only commands know it; btree publishes a snapshot without copying all of it"},
	"cmd/supervisord": {
		project: []string{"config", "internal/api", "internal/keeper", "internal/proc", "internal/refworker", "master", "systemd"},
		foreign: []string{cobra, hclog, unix},
		why:     "one file a subcommand, no logic: runs the master, or is a client of its API; proc for the stage that it is between fork and exec, refworker for the default configuration"},

	"internal/testkit": {project: []string{"internal/api"},
		why: "for tests: builds the programs and drives them from outside, as a user does"},
	"examples/go-echo": {project: []string{"worker"}, why: "to be copied, so the public package only"},
	"examples/go-http": {project: []string{"worker"}, why: "to be copied, so the public package only"},

	"bench/load":  {foreign: []string{unix}, why: "measures any server from outside: must not share code with what it measures"},
	"bench/plain": {why: "the measure of comparison: no supervisor, and nothing of one"},
	"bench/compare": {project: []string{"bench/load", "internal/api", "internal/testkit"}, foreign: []string{unix},
		why: "drives the built daemon and its peers from outside, and puts load on them"},
	"bench/compare/server": {project: []string{"worker"}, foreign: []string{unix},
		why: "what bench/compare measures: one handler, under supervision and without; the clock of a thread is in unix"},
	"bench/soak": {project: []string{"bench/load", "internal/api", "internal/proto", "internal/testkit"},
		why: "drives the built daemon from outside and puts load on it"},
	"bench/soak/recorder": {project: []string{"worker"}, foreign: []string{unix},
		why: "a worker that writes down what it is given: of ours the public package only"},
	"bench/soak/hostile": {foreign: []string{unix}, why: "does to its channel what no worker should: of ours nothing"},
	"bench/loadgen":      {project: []string{"bench/load"}, why: "the command of bench/load"},
}

// light are the packages that other people's programs link. Whatever they reach,
// they reach for everybody: never the configuration, the master or its libraries.
var light = []string{"worker", "fdpass", "systemd", "cmd/worker"}

func TestImports(t *testing.T) {
	found := packages(t)
	for pkg, files := range found {
		r, ok := imports[pkg]
		if !ok {
			t.Errorf("package %s is not in the table of imports (imports_test.go): add it, with what it may import and why", pkg)
			continue
		}
		for name, f := range files {
			for _, spec := range f.Imports {
				imp, _ := strconv.Unquote(spec.Path.Value)
				own, isOwn := strings.CutPrefix(imp, module)
				switch {
				case isOwn && !slices.Contains(r.project, own):
					t.Errorf("%s imports %s; package %s may import %q of ours (%s)", name, own, pkg, r.project, r.why)
				case !isOwn && !isStandard(imp) && !slices.Contains(r.foreign, imp):
					t.Errorf("%s imports %s; package %s may import %q of others (%s)", name, imp, pkg, r.foreign, r.why)
				}
			}
		}
	}
	for pkg, r := range imports {
		if found[pkg] == nil {
			t.Errorf("the table of imports has %s, which is no package", pkg)
		}
		if r.why == "" {
			t.Errorf("the rule for %s has no reason", pkg)
		}
	}
}

// What can be linked into a worker needs the standard library and x/sys only.
func TestWorkerIsLight(t *testing.T) {
	for _, root := range light {
		seen := map[string]bool{}
		for todo := []string{root}; len(todo) > 0; todo = todo[1:] {
			pkg := todo[0]
			if seen[pkg] {
				continue
			}
			seen[pkg] = true
			for _, f := range imports[pkg].foreign {
				if f != unix {
					t.Errorf("%s reaches %s by way of %s", root, f, pkg)
				}
			}
			todo = append(todo, imports[pkg].project...)
		}
		for _, heavy := range []string{"config", "master", "internal/core", "internal/proc", "internal/api"} {
			if seen[heavy] {
				t.Errorf("%s reaches %s", root, heavy)
			}
		}
	}
}

// Standard packages without a clock, a descriptor, a goroutine or a lock, and what
// of the others the core may use.
var (
	pure = []string{"cmp", "container/heap", "encoding/binary", "encoding/json", "errors", "fmt", "maps", "math", "net/netip", "path", "reflect", "slices",
		"sort", "strconv", "strings", "unicode", "unicode/utf8"}
	partly = map[string]func(name string) bool{
		"time": func(name string) bool { // lengths of time, not the time
			return slices.Contains([]string{"Duration", "Nanosecond", "Microsecond", "Millisecond", "Second", "Minute", "Hour"}, name)
		},
		"syscall": func(name string) bool { return name == "Errno" || strings.HasPrefix(name, "E") },
	}
)

func TestCoreIsPure(t *testing.T) {
	for _, pkg := range []string{"internal/core", "internal/proto"} {
		for name, f := range packages(t)[pkg] {
			for _, spec := range f.Imports {
				imp, _ := strconv.Unquote(spec.Path.Value)
				if isStandard(imp) && !slices.Contains(pure, imp) && partly[imp] == nil {
					t.Errorf("%s imports %s: the core has no descriptor, clock, goroutine, lock or logger", name, imp)
				}
			}
			ast.Inspect(f, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.GoStmt, *ast.ChanType:
					t.Errorf("%s: a goroutine or a channel in %s", name, pkg)
				case *ast.SelectorExpr:
					if id, ok := n.X.(*ast.Ident); ok && id.Obj == nil && partly[id.Name] != nil && !partly[id.Name](n.Sel.Name) {
						t.Errorf("%s uses %s.%s", name, id.Name, n.Sel.Name)
					}
				}
				return true
			})
		}
	}
}

func isStandard(imp string) bool {
	first, _, _ := strings.Cut(imp, "/")
	return !strings.Contains(first, ".")
}

// packages parses all Go files of this module that are no tests, of every platform, by
// package and name.
func packages(t *testing.T) map[string]map[string]*ast.File {
	t.Helper()
	found := map[string]map[string]*ast.File{}
	err := filepath.WalkDir(".", func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := d.Name()
		if d.IsDir() {
			if file != "." && (base == "testdata" || strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_")) {
				return filepath.SkipDir
			}
			if _, err := os.Stat(filepath.Join(file, "go.mod")); err == nil && file != "." {
				return filepath.SkipDir // another module
			}
			return nil
		}
		if !strings.HasSuffix(base, ".go") || strings.HasSuffix(base, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			return err
		}
		pkg := path.Dir(filepath.ToSlash(file))
		if found[pkg] == nil {
			found[pkg] = map[string]*ast.File{}
		}
		found[pkg][file] = f
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
