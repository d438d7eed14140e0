package config

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
)

func readTestdata(t testing.TB, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// noNetwork keeps a test from asking name servers.
func noNetwork(t testing.TB) {
	old := lookupNetIP
	t.Cleanup(func() { lookupNetIP = old })
	lookupNetIP = func(context.Context, string, string) ([]netip.Addr, error) {
		return []netip.Addr{netip.MustParseAddr("::1"), netip.MustParseAddr("192.0.2.1")}, nil
	}
}

const positionText = "\ufeff# [not.a.table]\r\n" + `a = 1
b.c = "x # not a comment" # b.d = 3
"quoted key" = 'lit\'
"esc\u0061ped\"" . x = """
y = 1
\"""" q = 2""""" # five quotes
m = '''
[no]
''''
list = [ # [no]
  "]", '#',
  [1, 2,
   3, 4], { in = 1,
     deep = { er = 2 } },
]
[t]  # table
k = { x = 1, "y" = [ { z = 2 } ], v.w = 3 }
[ t . "s p" ]
date = 2024-01-01 10:00:00
last = inf
[[arr]]
e = 1
[[arr]]
f = 1
[p.q.r]
s = 1
[p]
end = true`

func TestPositions(t *testing.T) {
	text := strings.Replace(positionText, `""""" # five`, `""" # five`, 1)
	text = strings.Replace(text, `\"""" q = 2`, `\"" q = 2`, 1)
	var root map[string]any
	if _, err := toml.Decode(text, &root); err != nil {
		t.Fatal(err)
	}
	found := scanPositions(text)
	for key, line := range map[string]int{
		"a": 2, "b": 3, "b/c": 3, "quoted key": 4, `escaped"`: 5, `escaped"/x`: 5, "m": 8, "list": 11,
		"list/#0": 12, "list/#1": 12, "list/#2": 13, "list/#3": 14, "list/in": 14, "list/deep/er": 15,
		"t": 17, "t/k": 18, "t/k/x": 18, "t/k/y/z": 18, "t/k/v/w": 18, "t/s p": 19, "t/s p/date": 20, "t/s p/last": 21,
		"arr": 22, "arr/e": 23, "arr/f": 25, "p/q/r": 26, "p/q": 26, "p/q/r/s": 27, "p": 28, "p/end": 29,
	} {
		if at := found[strings.ReplaceAll(key, "/", "\x00")]; at.line != line {
			t.Errorf("%s: line %d, want %d", key, at.line, line)
		}
	}
	for _, key := range []string{"not", "y", "q", "no", "#"} {
		if at, ok := found[key]; ok {
			t.Errorf("found %s in line %d", key, at.line)
		}
	}
	if line := found.line("t", "k", "nothing", "here"); line != 18 {
		t.Errorf("line of an unknown key: %d, want that of its table", line)
	}
}

// FuzzPositions: never panics, and finds every key of a valid document.
func FuzzPositions(f *testing.F) {
	f.Add(positionText)
	f.Add(exampleTOML)
	f.Add(strings.Repeat("a=[", 10) + strings.Repeat("]", 10))
	f.Add("a = {b = {c = [[[{d=1}]]]}}\n[x.y]\n[[z]]\nx='''a''''\ny=\"\"\"\\\n\"\"\"\"\"\n")
	for _, path := range []string{"types", "combinations", "unknown", "syntax"} {
		f.Add(readTestdata(f, "errors/"+path+".toml"))
	}
	f.Fuzz(func(t *testing.T, text string) {
		found := scanPositions(text)
		lines := 1 + strings.Count(text, "\n")
		for key, at := range found {
			if at.line < 1 || at.line > lines {
				t.Fatalf("%q in line %d of %d", key, at.line, lines)
			}
		}
		var root map[string]any
		meta, err := toml.Decode(text, &root)
		if err != nil || strings.Count(text, "[")+strings.Count(text, "{") > maxDepth {
			return
		}
		for _, key := range meta.Keys() {
			if at, ok := found[pathKey(key)]; !ok || at.line < 1 {
				t.Fatalf("%q is not found in %q: %v", key, text, found)
			}
		}
	})
}
