package supervisord_test

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestFaultsDocument: every test, script and scenario that docs/faults.md names
// exists.
func TestFaultsDocument(t *testing.T) {
	doc, err := os.ReadFile("docs/faults.md")
	if err != nil {
		t.Fatal(err)
	}
	var tests bytes.Buffer
	err = filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		data, err := os.ReadFile(path)
		tests.Write(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	soak, err := os.ReadFile("bench/soak/main.go")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, m := range regexp.MustCompile("(script |soak )?`([A-Za-z0-9_-]+)`").FindAllSubmatch(doc, -1) {
		kind, name := string(m[1]), string(m[2])
		n++
		switch {
		case kind == "script ":
			if _, err := os.Stat(filepath.Join("internal/core/testdata/scripts", name)); err != nil {
				t.Errorf("there is no script %s", name)
			}
		case kind == "soak ":
			if !bytes.Contains(soak, []byte(`{"`+name+`",`)) {
				t.Errorf("there is no scenario %s", name)
			}
		case strings.HasPrefix(name, "Test"):
			if !bytes.Contains(tests.Bytes(), []byte("func "+name+"(t *testing.T)")) {
				t.Errorf("there is no test %s", name)
			}
		default:
			n--
		}
	}
	if n < 40 {
		t.Errorf("only %d tests, scripts and scenarios found in the document", n)
	}
}
