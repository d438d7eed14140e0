package config

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite docs/configuration.md and the golden files")

// golden compares got with a file, or rewrites the file with -update.
func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s differs (go generate ./config rewrites it; - want, + got):\n%s", path, diff)
	}
}

func TestReferenceIsCurrent(t *testing.T) {
	golden(t, filepath.Join("..", "docs", "configuration.md"), Reference())
}

// TestSchema keeps the schema complete: every key says what it is.
func TestSchema(t *testing.T) {
	var walk func(path string, fields []field)
	walk = func(path string, fields []field) {
		for _, f := range fields {
			if f.table != nil {
				walk(path+"."+f.key, f.table)
				continue
			}
			if len(f.doc) < 5 || f.doc[len(f.doc)-1] != '.' {
				t.Errorf("%s.%s: no doc sentence: %q", path, f.key, f.doc)
			}
			if f.codec.decode == nil || f.codec.encode == nil {
				t.Errorf("%s.%s: no codec", path, f.key)
			}
		}
	}
	for _, sec := range sections {
		walk(sec.name, sec.keys)
	}
}

func TestExampleIsValid(t *testing.T) {
	dir := t.TempDir()
	c, err := Parse("supervisord.toml", []byte(exampleTOML), dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Pools) != 2 || c.Pools[0].WorkingDirectory != dir {
		t.Errorf("%+v", c.Pools)
	}
}
