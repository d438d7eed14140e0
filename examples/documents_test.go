package examples_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/f72e338e/supervisord/internal/api"
)

// read returns a document of the repository.
func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", filepath.FromSlash(name)))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

var fence = regexp.MustCompile("(?ms)^```([a-z]*)\n(.*?)^```$")

// blocks returns the contents of a document's code blocks of a language.
func blocks(doc, language string) (list []string) {
	for _, m := range fence.FindAllStringSubmatch(doc, -1) {
		if m[1] == language {
			list = append(list, m[2])
		}
	}
	return list
}

// build builds a package or file of this module and returns the program's path.
func build(t *testing.T, what string) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "program")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", program, what)
	cmd.Dir = ".."
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build %s: %v\n%s", what, err, out)
	}
	return program
}

// The Go programs of the README build, and its configurations are good.
func TestReadme(t *testing.T) {
	doc := read(t, "README.md")
	supervisord := build(t, "./cmd/supervisord")
	programs, files := blocks(doc, "go"), blocks(doc, "toml")
	if len(programs) == 0 || len(files) == 0 {
		t.Fatalf("the README has %d Go programs and %d configurations", len(programs), len(files))
	}
	for _, text := range programs {
		name := filepath.Join(t.TempDir(), "main.go")
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		build(t, name)
	}
	for _, text := range files {
		name := filepath.Join(t.TempDir(), "supervisord.toml")
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.CommandContext(t.Context(), supervisord, "check", "-c", name).CombinedOutput(); err != nil {
			t.Errorf("%v: %s\n%s", err, out, text)
		}
	}
}

var (
	commandLine = regexp.MustCompile(`(?m)^  ([a-z]+) {2,}\S`)
	flagLine    = regexp.MustCompile(`(?m)^ +(?:-\w, |)(--[a-z-]+)`)
)

// docs/commands.md has every command and flag that the program's own help has.
func TestCommandsDocument(t *testing.T) {
	doc := read(t, "docs/commands.md")
	supervisord := build(t, "./cmd/supervisord")
	help := func(args ...string) string {
		out, err := exec.CommandContext(t.Context(), supervisord, append(args, "--help")...).CombinedOutput()
		if err != nil {
			t.Fatalf("supervisord %v --help: %v\n%s", args, err, out)
		}
		return string(out)
	}
	_, list, _ := strings.Cut(help(), "Available Commands:")
	commands := commandLine.FindAllStringSubmatch(list, -1)
	if len(commands) < 5 {
		t.Fatalf("no commands found in %q", list)
	}
	for _, m := range commands {
		if m[1] == "help" {
			continue
		}
		if !strings.Contains(doc, "\n### "+m[1]+"\n") {
			t.Errorf("docs/commands.md has no section for the command %s", m[1])
		}
		for _, f := range flagLine.FindAllStringSubmatch(help(m[1]), -1) {
			if !strings.Contains(doc, "`"+f[1]) {
				t.Errorf("docs/commands.md does not have %s of the command %s", f[1], m[1])
			}
		}
	}
	for _, path := range []string{api.PathStatus, api.PathConnections, api.PathEvents, api.PathReload, api.PathRestart, api.PathScale, api.PathStop} {
		if !strings.Contains(doc, "`"+path+"`") {
			t.Errorf("docs/commands.md does not have %s", path)
		}
	}
}

// The status in docs/commands.md has the members that the program writes.
func TestStatusDocument(t *testing.T) {
	examples := blocks(read(t, "docs/commands.md"), "json")
	if len(examples) != 1 {
		t.Fatalf("%d examples", len(examples))
	}
	var status api.Status
	dec := json.NewDecoder(strings.NewReader(examples[0]))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&status); err != nil {
		t.Fatal(err)
	}
	written, err := json.Marshal(status)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(generic(t, []byte(examples[0])), generic(t, written)); diff != "" {
		t.Errorf("document against program:\n%s", diff)
	}
}

func generic(t *testing.T, text []byte) (v any) {
	t.Helper()
	if err := json.NewDecoder(bytes.NewReader(text)).Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

var link = regexp.MustCompile(`\]\(([^)#:]+)(?:#[^)]*)?\)`)

// Every file that a document links to is there.
func TestLinks(t *testing.T) {
	names := []string{"README.md"}
	for _, pattern := range []string{"../docs/*.md", "../docs/decisions/*.md", "../examples/*/README.md"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range found {
			names = append(names, strings.TrimPrefix(filepath.ToSlash(f), "../"))
		}
	}
	for _, name := range names {
		for _, m := range link.FindAllStringSubmatch(fence.ReplaceAllString(read(t, name), ""), -1) {
			if _, err := os.Stat(filepath.Join("..", filepath.Dir(name), m[1])); err != nil {
				t.Errorf("%s links to %s: %v", name, m[1], err)
			}
		}
	}
}
