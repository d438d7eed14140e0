package worker

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// A row of docs/net-server.md names tests of this package, of internal/dispatch
// ("dispatch.TestName"), and scripts of internal/core ("scripts/name").
var rowTest = regexp.MustCompile(`^(?:(?:dispatch\.)?(?:Test|Fuzz)[A-Z]\w*|scripts/\w+)$`)

// Each test that docs/net-server.md names exists, each row of a comparison names
// one or says why there is none, and no test of a Server is without its row.
func TestNetServerDocument(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "docs", "net-server.md"))
	if err != nil {
		t.Fatal(err)
	}
	tests := testsOf(t, ".", "")
	known := testsOf(t, filepath.Join("..", "internal", "dispatch"), "dispatch.")
	maps.Copy(known, tests)
	scripts, err := os.ReadDir(filepath.Join("..", "internal", "core", "testdata", "scripts"))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range scripts {
		known["scripts/"+s.Name()] = s.Name()
	}
	named := map[string]bool{}
	for i, line := range strings.Split(string(text), "\n") {
		cells := strings.Split(strings.Trim(line, "|"), " | ")
		if !strings.HasPrefix(line, "| ") || len(cells) != 3 || strings.TrimSpace(cells[2]) == "test" {
			continue
		}
		last := strings.TrimSpace(cells[2])
		if strings.HasPrefix(last, "none") {
			continue
		}
		for _, name := range strings.Split(last, ", ") {
			if !rowTest.MatchString(name) || known[name] == "" {
				t.Errorf("docs/net-server.md:%d: there is no test %q", i+1, name)
			}
			named[name] = true
		}
	}
	if len(named) < 30 {
		t.Errorf("docs/net-server.md names %d tests: has its form changed?", len(named))
	}
	for name, file := range tests {
		if strings.HasPrefix(file, "server_") && name != t.Name() && !named[name] {
			t.Errorf("docs/net-server.md does not name %s of %s", name, file)
		}
	}
}

// testsOf returns the tests of a package, and the file of each.
func testsOf(t *testing.T, dir, prefix string) map[string]string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]string{}
	for _, name := range files {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && rowTest.MatchString(fn.Name.Name) {
				tests[prefix+fn.Name.Name] = filepath.Base(name)
			}
		}
	}
	return tests
}
