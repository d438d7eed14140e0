package config

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
)

// searched lists where Find looks.
var searched = []string{"supervisord.toml", "/etc/supervisord/supervisord.toml"}

// Find returns the file to load: explicit when it is not "", else the first of
// ./supervisord.toml and /etc/supervisord/supervisord.toml that exists, else "",
// which means [Default]. The error is that of stat(2) on a file that may exist and
// cannot be seen; an explicit file is not looked at.
func Find(explicit string) (path string, err error) {
	if explicit != "" {
		return explicit, nil
	}
	for _, path := range searched {
		_, err := os.Stat(path)
		if err == nil {
			return path, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("cannot look for a configuration: %w", err)
		}
	}
	return "", nil
}

// Load reads the file and those it includes. The error is [Errors] when the
// content is bad; else it wraps the error of opening or reading the main file.
func Load(path string) (*Config, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read the configuration: %w", err)
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read the configuration: %w", err)
	}
	c, err := Parse(path, data, filepath.Dir(abs))
	if err == nil && len(c.Pools) == 0 {
		// An empty file is what a full disk or a careless ">" leaves, and a daemon
		// that reloads it would stop everything.
		return nil, Errors{{File: path, Problem: "there is no [pool.NAME], so nothing would run"}}
	}
	return c, err
}

// Parse reads a configuration from data. name is the file it came from, for errors
// and Config.File; it may be "". dir is the directory that relative paths and
// includes are relative to; with "" relative paths are relative to the working
// directory, and includes are refused. The error is [Errors] when the content is
// bad; else the working directory is not known.
func Parse(name string, data []byte, dir string) (*Config, error) {
	l, err := newLoader(dir)
	if err != nil {
		return nil, err
	}
	if name != "" {
		if l.c.File, err = filepath.Abs(name); err != nil {
			return nil, fmt.Errorf("cannot resolve %s: %w", name, err)
		}
		l.c.Files = []string{l.c.File}
	}
	l.names = []string{name}
	if main := l.read(name, string(data)); main != nil {
		l.sections(main, true)
		l.include(main, dir != "")
	}
	return l.finish()
}

// loader gathers one configuration from several files.
type loader struct {
	c      *Config
	dir    string // absolute: relative paths are relative to it
	names  []string
	errs   Errors
	broken bool // a file could not be read: what is missing may be in it

	listeners map[string]*table // where each listener and pool was defined
	pools     map[string]*table
}

func newLoader(dir string) (*loader, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("cannot find the working directory: %w", err)
	}
	return &loader{c: &Config{}, dir: abs, listeners: map[string]*table{}, pools: map[string]*table{}}, nil
}

// finish makes the checks that need the whole, and returns the result.
func (l *loader) finish() (*Config, error) {
	l.check()
	if len(l.errs) > 0 {
		return nil, l.errs.sorted(l.names)
	}
	return l.c, nil
}

// read parses one file; nil when it is not TOML, which is then reported.
func (l *loader) read(name, text string) *source {
	s := &source{name: name, errs: &l.errs}
	meta, err := toml.Decode(text, &s.root)
	if err != nil {
		e := Error{File: name, Problem: strings.ReplaceAll(err.Error(), "\n", " ")}
		var syntax toml.ParseError
		if errors.As(err, &syntax) {
			// Line and Col of the decoder are off by one line at a line end.
			before := text[:max(0, min(syntax.Position.Start, len(text)))]
			e.Line = 1 + strings.Count(before, "\n")
			e.Problem = fmt.Sprintf("column %d: not valid TOML: %s",
				len(before)-strings.LastIndexByte(before, '\n'), strings.ReplaceAll(syntax.Message, "\n", " "))
		}
		l.errs = append(l.errs, e)
		l.broken = true
		return nil
	}
	s.where = scanPositions(text)
	for _, key := range meta.Keys() {
		s.keys = append(s.keys, key)
	}
	return s
}

// sections decodes the tables of one file.
func (l *loader) sections(s *source, main bool) {
	allowed := []string{"include"}
	for _, sec := range sections {
		allowed = append(allowed, sec.name)
	}
	root := s.table(s.root)
	for _, key := range slices.Sorted(maps.Keys(s.root)) {
		switch {
		case slices.Contains(later, key):
			root.errorf(key, "is not available in this version")
		case !slices.Contains(allowed, key) && nearest(key, allowed) != "":
			root.errorf(key, "unknown key (did you mean %q?)", nearest(key, allowed))
		case !slices.Contains(allowed, key):
			root.errorf(key, "unknown key (allowed: %s)", strings.Join(allowed, ", "))
		case !main && key != "listener" && key != "pool":
			root.errorf(key, "is only possible in the main file (allowed: listener, pool)")
		}
	}
	if main {
		l.single(s, "supervisor", &l.c.Supervisor)
		l.control(l.single(s, "control", &l.c.Control))
	}
	for _, t := range s.named("listener") {
		if l.define(l.listeners, t) {
			l.c.Listeners = append(l.c.Listeners, l.listener(t))
		}
	}
	for _, t := range s.named("pool") {
		if l.define(l.pools, t) {
			l.c.Pools = append(l.c.Pools, l.pool(t))
		}
	}
}

// single decodes a table that exists once.
func (l *loader) single(s *source, name string, into any) *table {
	v, stated := s.root[name]
	values, ok := v.(map[string]any)
	if stated && !ok {
		s.errorf([]string{name}, "must be a table, is %s (write [%s])", describe(v), name)
	}
	t := s.table(values, name)
	t.decode(sectionOf(name).keys, into)
	return t
}

// named returns the tables below a section, in the order of the text.
func (s *source) named(section string) []*table {
	v, stated := s.root[section]
	tables, ok := v.(map[string]any)
	if stated && !ok {
		s.errorf([]string{section}, "must be a table of named tables, is %s (write [%s.NAME])", describe(v), section)
	}
	var names []string
	for _, key := range s.keys {
		if len(key) > 1 && key[0] == section {
			names = append(names, key[1])
		}
	}
	names = append(names, slices.Sorted(maps.Keys(tables))...)
	var found []*table
	seen := map[string]bool{}
	for _, name := range names {
		if _, ok := tables[name]; !ok || seen[name] {
			continue
		}
		seen[name] = true
		values, ok := tables[name].(map[string]any)
		if !ok {
			s.errorf([]string{section, name}, "must be a table, is %s (write [%s.NAME])", describe(tables[name]), section)
			continue
		}
		found = append(found, s.table(values, section, name))
	}
	return found
}

// define enters a listener or pool by its name; false when the name is taken.
func (l *loader) define(defined map[string]*table, t *table) bool {
	name := t.path[1]
	if !validName(name) || len(name) > 64 {
		t.errorf("", "bad name (1 to 64 letters, digits, _ or -)")
	}
	if first, taken := defined[name]; taken {
		t.errorf("", "defined twice (first in %s:%d)", first.src.name, first.src.where.line(first.path...))
		return false
	}
	defined[name] = t
	return true
}

func validName(s string) bool {
	return s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") == ""
}
