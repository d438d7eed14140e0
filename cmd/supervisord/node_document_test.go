package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/f72e338e/supervisord/internal/testkit"
)

func nodeDocument(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/node.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestNodeDocument: the first example of docs/node.md runs as it stands there.
func TestNodeDocument(t *testing.T) {
	findNode(t)
	doc := nodeDocument(t)
	block := func(language string) string {
		t.Helper()
		_, rest, _ := strings.Cut(doc, "```"+language+"\n")
		text, _, ok := strings.Cut(rest, "```")
		if !ok {
			t.Fatalf("there is no example in %s", language)
		}
		return text
	}
	d := testkit.New(t)
	address := testkit.Address(t)
	_, port, _ := strings.Cut(address, ":")
	here := strings.NewReplacer("8080", port)
	d.Write("app.js", here.Replace(block("js")))
	d.Configure(here.Replace(block("toml")))
	d.Start()
	var answers []string
	for range 4 {
		answers = append(answers, get(t, address))
	}
	slices.Sort(answers)
	if n := len(slices.Compact(answers)); n != 4 || !strings.HasPrefix(answers[0], "hello from ") {
		t.Errorf("%d workers answered: %q", n, answers)
	}
}

// TestNodeDocumentDifferences: docs/node.md names the scenarios that come out in another
// way, and no others, and how many there are.
func TestNodeDocumentDifferences(t *testing.T) {
	doc := nodeDocument(t)
	_, rest, _ := strings.Cut(doc, "| scenario | Node's primary |")
	table, _, ok := strings.Cut(rest, "\n\n")
	if !ok {
		t.Fatal("there is no table of differences")
	}
	var named, listed []string
	for _, row := range regexp.MustCompile(`(?m)^\| ([0-9, ]+) \|`).FindAllStringSubmatch(table, -1) {
		named = append(named, strings.Split(row[1], ", ")...)
	}
	for name := range nodeDifferences {
		number, _, _ := strings.Cut(name, "-")
		listed = append(listed, number)
	}
	slices.Sort(named)
	slices.Sort(listed)
	if !slices.Equal(named, listed) {
		t.Errorf("it names %v, and the test %v", named, listed)
	}
	scenarios, _ := filepath.Glob("testdata/node/[0-9]*.js")
	if text := fmt.Sprintf("has %d scenarios", len(scenarios)); !strings.Contains(doc, text) {
		t.Errorf("it does not say %q", text)
	}
	accepted, _ := filepath.Glob("testdata/node/accepted/*.json")
	if len(accepted) != len(nodeDifferences) {
		t.Errorf("%d outcomes are accepted, and %d differences are listed", len(accepted), len(nodeDifferences))
	}
}
