package worker

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Each test that docs/net-server.md names exists, each row of a comparison names
// one or says why there is none, and no test of a Server is without its row.
func TestNetServerDocument(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "docs", "net-server.md"))
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("*_test.go")
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
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil {
				tests[fn.Name.Name] = name
			}
		}
	}
	named := map[string]bool{}
	word := regexp.MustCompile(`^(Test|Fuzz)[A-Z]\w*$`)
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
			if !word.MatchString(name) || tests[name] == "" {
				t.Errorf("docs/net-server.md:%d: there is no test %q", i+1, name)
			}
			named[name] = true
		}
	}
	if len(named) < 30 {
		t.Errorf("docs/net-server.md names %d tests: has its form changed?", len(named))
	}
	for name, file := range tests {
		if strings.HasPrefix(file, "server_") && word.MatchString(name) && name != t.Name() && !named[name] {
			t.Errorf("docs/net-server.md does not name %s of %s", name, file)
		}
	}
}
