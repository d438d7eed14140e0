package config

import (
	_ "embed"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

//go:embed default.toml
var defaultTOML []byte

// Default returns the embedded default: two reference workers on 127.0.0.1:8124.
// self is the absolute path of the program that, called with "worker", is one.
// Errors: self is not absolute, or the working directory is not known.
func Default(self string) (*Config, error) {
	if !filepath.IsAbs(self) {
		return nil, fmt.Errorf("path of the reference worker %q: not absolute", self)
	}
	c, err := Parse("", defaultTOML, "")
	if err != nil {
		return nil, fmt.Errorf("embedded default: %w", err)
	}
	for i := range c.Pools {
		for j, arg := range c.Pools[i].Command {
			c.Pools[i].Command[j] = strings.ReplaceAll(arg, "{self}", self)
		}
	}
	return c, nil
}

// FromFlags returns the configuration of "run --listen ADDRESS... --workers N --
// COMMAND": the pool "main" with the listeners "main", "main-2" and so on. workers
// is a number or "auto"; it and protocol may be "" for the default. The error is
// [Errors] with the flags as keys; else the working directory is not known.
func FromFlags(listen []string, workers string, protocol string, command []string) (*Config, error) {
	pool := map[string]any{"command": anys(command)}
	if protocol != "" {
		pool["protocol"] = protocol
	}
	if n, err := strconv.ParseInt(workers, 10, 64); err == nil {
		pool["workers"] = n
	} else if workers != "" {
		pool["workers"] = workers
	}
	flags := map[string]string{"pool.main.workers": "--workers", "pool.main.protocol": "--protocol", "pool.main.command": "command", "pool.main.listeners": "--listen"}
	listeners := map[string]any{}
	keys := [][]string{}
	names := []string{}
	for i, address := range listen {
		name := "main"
		if i > 0 {
			name = fmt.Sprintf("main-%d", i+1)
		}
		names = append(names, name)
		keys = append(keys, []string{"listener", name})
		listeners[name] = map[string]any{"address": address}
		flags["listener."+name+".address"] = "--listen " + address
	}
	if len(names) > 0 {
		pool["listeners"] = anys(names)
	}
	l, err := newLoader("")
	if err != nil {
		return nil, err
	}
	root := map[string]any{"listener": listeners, "pool": map[string]any{"main": pool}}
	l.sections(&source{root: root, keys: keys, errs: &l.errs}, true)
	c, err := l.finish()
	return c, renameKeys(err, flags)
}

// renameKeys gives errors the names by which the caller knows the keys. What is
// wrong and is no flag can only be stated in a file.
func renameKeys(err error, names map[string]string) error {
	var errs Errors
	if !errors.As(err, &errs) {
		return err
	}
	for i := range errs {
		for _, key := range slices.Sorted(maps.Keys(names)) {
			if rest, ok := strings.CutPrefix(errs[i].Key, key); ok && (rest == "" || rest[0] == '[') {
				errs[i].Key = names[key]
			}
		}
		if strings.HasPrefix(errs[i].Key, "pool.main.") {
			errs[i].Problem += "; this needs a configuration file"
		}
	}
	return errs
}

func anys(list []string) []any {
	out := make([]any, len(list))
	for i, s := range list {
		out[i] = s
	}
	return out
}
