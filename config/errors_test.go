package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestErrors shows every error file with all that is wrong with it.
func TestErrors(t *testing.T) {
	files, err := filepath.Glob("testdata/errors/*.toml")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			c, err := Parse(filepath.Base(file), data, "/nonexistent")
			var errs Errors
			if !errors.As(err, &errs) || c != nil {
				t.Fatalf("got %v, %v", c, err)
			}
			for _, e := range errs {
				if e.Line == 0 || e.File == "" {
					t.Errorf("no position: %+v", e)
				}
			}
			golden(t, strings.TrimSuffix(file, ".toml")+".golden", err.Error()+"\n")
		})
	}
}

func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestInclude(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{
		"web.toml":        "include = [\"conf.d/*.toml\", \"conf.d/b.toml\", \"none-*.toml\"]\n[listener.main]\naddress = \":80\"\n",
		"conf.d/b.toml":   "[pool.b]\ncommand = [\"./b\"]\nlisteners = [\"main\", \"a\"]\nworking_directory = \"sub\"\n",
		"conf.d/a.toml":   "[listener.a]\naddress = \"unix:a.sock\"\n[pool.z]\ncommand = [\"./z\"]\n[pool.a]\ncommand = [\"./a\"]\n",
		"conf.d/a.ignore": "[",
	})
	c, err := Load(filepath.Join(dir, "web.toml"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, p := range c.Pools {
		names = append(names, p.Name)
	}
	if got := strings.Join(names, " "); got != "z a b" {
		t.Errorf("pools %s", got)
	}
	if want := filepath.Join(dir, "a.sock"); c.Listeners[1].Spec.Address != want {
		t.Errorf("path %s, want %s", c.Listeners[1].Spec.Address, want)
	}
	if want := filepath.Join(dir, "sub"); c.Pools[2].WorkingDirectory != want {
		t.Errorf("directory %s, want %s", c.Pools[2].WorkingDirectory, want)
	}
	if len(c.Files) != 3 || c.Files[0] != c.File || filepath.Base(c.Files[1]) != "a.toml" || !filepath.IsAbs(c.Files[2]) {
		t.Errorf("files %v", c.Files)
	}
}

func TestIncludeErrors(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{
		"web.toml": "include = [\"conf.d/*.toml\", \"gone.toml\", \"[\"]\n[pool.web]\ncommand = [\"./web\"]\nlisteners = [\"x\"]\nworker = 1\n",
		"conf.d/a.toml": "include = [\"x\"]\n[supervisor]\nlog_level = \"info\"\n[pool.web]\ncommand = [\"./other\"]\n" +
			"[pool.c]\ncommand = [\"./c\"]\nenv_file = \"c.env\"\n",
		"conf.d/b.toml": "[listener.x\naddress = 1\n",
		"c.env":         "A=1\nexport B=2\nnonsense\n",
	})
	want := `web.toml:1: include[1]: there is no file "gone.toml"
web.toml:1: include[2]: "[" is not a pattern (such as "conf.d/*.toml")
web.toml:5: pool.web.worker: unknown key (did you mean "workers"?)
conf.d/a.toml:1: include: is only possible in the main file (allowed: listener, pool)
conf.d/a.toml:2: supervisor: is only possible in the main file (allowed: listener, pool)
conf.d/a.toml:4: pool.web: defined twice (first in web.toml:2)
conf.d/b.toml:1: column 12: not valid TOML: expected '.' or ']' to end table name, but got '\n' instead
DIR/c.env:2: export B: is no name of an environment variable (leave export out: no shell reads this file)
DIR/c.env:3: is not KEY=VALUE`
	t.Chdir(dir)
	_, err := Load("web.toml")
	if err == nil {
		t.Fatal("no error")
	}
	if got := strings.ReplaceAll(err.Error(), dir, "DIR"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	// Named by an absolute path, so are the included files.
	_, err = Load(filepath.Join(dir, "web.toml"))
	if err == nil || !strings.Contains(err.Error(), filepath.Join(dir, "conf.d/a.toml")+":4: ") {
		t.Errorf("got %v", err)
	}
	if _, err := Parse("x.toml", []byte(`include = ["*.toml"]`), ""); err == nil || !strings.Contains(err.Error(), "x.toml:1: include: is not possible here") {
		t.Errorf("got %v", err)
	}
}

func TestLoadMissing(t *testing.T) {
	_, err := Load(filepath.Join(t.TempDir(), "x.toml"))
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestFind(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	old := searched
	t.Cleanup(func() { searched = old })
	searched = []string{"supervisord.toml", filepath.Join(dir, "etc", "supervisord.toml")}

	find := func(explicit, want string) {
		t.Helper()
		if got, err := Find(explicit); got != want || err != nil {
			t.Errorf("Find(%q) = %q, %v; want %q", explicit, got, err, want)
		}
	}
	find("", "")
	write(t, dir, map[string]string{"etc/supervisord.toml": ""})
	find("", searched[1])
	write(t, dir, map[string]string{"supervisord.toml": ""})
	find("", "supervisord.toml")
	find("other.toml", "other.toml")
}

func TestNearest(t *testing.T) {
	names := []string{"workers", "command", "user", "umask"}
	for word, want := range map[string]string{
		"worker": "workers", "wrokers": "workers", "Workers": "workers", "comand": "command", "usr": "user",
		"zzz": "", "": "", strings.Repeat("workers", 100): "",
	} {
		if got := nearest(word, names); got != want {
			t.Errorf("nearest(%q) = %q, want %q", word, got, want)
		}
	}
}
