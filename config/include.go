package config

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// include reads the files that the main file names. Without a directory that the
// configuration has of its own they are refused: the working directory would
// decide what is loaded.
func (l *loader) include(main *source, hasDir bool) {
	v, ok := main.root["include"]
	if !ok {
		return
	}
	t := main.table(main.root)
	if !hasDir {
		t.errorf("include", "is not possible here: the configuration has no directory")
		return
	}
	patterns, ok := list(v, "strings", func(_, format string, args ...any) { t.errorf("include", format, args...) })
	if !ok {
		return
	}
	for i, v := range patterns {
		report := func(_, format string, args ...any) { t.errorAt("include", element(i), format, args...) }
		pattern, ok := text(v, whole, report)
		if !ok {
			continue
		}
		absolute := pattern
		if !filepath.IsAbs(pattern) {
			absolute = filepath.Join(literalPattern.Replace(l.dir), pattern)
		}
		files, err := filepath.Glob(absolute)
		switch {
		case err != nil:
			report(whole, "%q is not a pattern (such as \"conf.d/*.toml\")", pattern)
		case len(files) == 0 && !strings.ContainsAny(pattern, `*?[`):
			report(whole, "there is no file %q", pattern)
			l.broken = true
		}
		slices.Sort(files)
		for _, file := range files {
			l.includeFile(file, main.name, report)
		}
	}
}

// literalPattern makes a path a pattern that matches only itself.
var literalPattern = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`)

// includeFile reads one file, once: several patterns may match it, and the main
// file, too.
func (l *loader) includeFile(file, main string, report reporter) {
	if slices.Contains(l.c.Files, file) {
		return
	}
	data, err := readFile(file)
	if err != nil {
		report(whole, "cannot include it: %v", err)
		l.broken = true
		return
	}
	l.c.Files = append(l.c.Files, file)
	name := l.shown(file, main)
	l.names = append(l.names, name)
	if s := l.read(name, string(data)); s != nil {
		l.sections(s, false)
	}
}

// shown names a file in errors as the main file was named: relative when that was.
func (l *loader) shown(file, main string) string {
	if main == "" || filepath.IsAbs(main) || filepath.Join(l.dir, filepath.Base(main)) != l.c.File {
		return file
	}
	rel, err := filepath.Rel(l.dir, file)
	if err != nil {
		return file
	}
	return filepath.Join(filepath.Dir(main), rel)
}

// maxFile bounds the files that the configuration names, in bytes.
const maxFile = 4 << 20

// readFile reads a file that the configuration names. Only regular ones: reading
// a FIFO or a device might never end.
func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is not a regular file", path)
	case info.Size() > maxFile:
		return nil, fmt.Errorf("%s has %d bytes (at most %d)", path, info.Size(), maxFile)
	}
	return os.ReadFile(path)
}
