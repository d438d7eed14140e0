package config

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// source is one file and what was found in it.
type source struct {
	name  string // as it is named in errors
	where positions
	root  map[string]any
	keys  [][]string // all keys in order
	errs  *Errors
}

// table is a table of a source while it is decoded.
type table struct {
	src    *source
	path   []string
	values map[string]any
	bad    map[string]bool // keys that were refused
	sub    map[string]*table
}

func (s *source) table(values map[string]any, path ...string) *table {
	return &table{src: s, path: path, values: values, bad: map[string]bool{}, sub: map[string]*table{}}
}

func (s *source) errorf(path []string, format string, args ...any) {
	*s.errs = append(*s.errs, Error{s.name, s.where.line(path...), dotted(path), fmt.Sprintf(format, args...)})
}

// dotted is a path as TOML writes it, with elements of lists in brackets.
func dotted(path []string) string {
	var b strings.Builder
	for i, p := range path {
		switch {
		case strings.HasPrefix(p, "#"):
			b.WriteString("[" + p[1:] + "]")
			continue
		case i > 0:
			b.WriteByte('.')
		}
		b.WriteString(quoteKey(p))
	}
	return b.String()
}

// has reports whether the key is stated, be it right or wrong.
func (t *table) has(key string) bool {
	_, ok := t.values[key]
	return ok
}

// good reports whether the key was not refused: a default counts as good.
func (t *table) good(key string) bool { return !t.bad[key] }

// errorf reports a problem with a key, or with the table itself when key is "".
func (t *table) errorf(key, format string, args ...any) { t.errorAt(key, whole, format, args...) }

// errorAt reports a problem with a part of the value of key.
func (t *table) errorAt(key, at, format string, args ...any) {
	path := slices.Clone(t.path)
	for _, p := range []string{key, at} {
		if p != "" {
			path = append(path, p)
		}
	}
	t.bad[key] = true
	t.src.errorf(path, format, args...)
}

// decode fills into, a pointer to a struct of the schema, from the table: first
// the default, then what is stated. It reports unknown and missing keys and bad
// values; what is bad keeps its default.
func (t *table) decode(fields []field, into any) {
	t.decodeStruct(fields, reflect.ValueOf(into).Elem())
}

func (t *table) decodeStruct(fields []field, s reflect.Value) {
	for i := range fields {
		f := &fields[i]
		dst := s.Field(f.index)
		v, stated := t.values[f.key]
		if f.table != nil {
			sub, ok := v.(map[string]any)
			if stated && !ok {
				t.errorf(f.key, "must be a table, is %s (write [%s])", describe(v), dotted(append(t.path, f.key)))
			}
			t.sub[f.key] = t.src.table(sub, append(slices.Clone(t.path), f.key)...)
			t.sub[f.key].decodeStruct(f.table, dst)
			continue
		}
		if f.hasDefault {
			f.codec.decode(f, f.defaultValue(), s, dst, func(_, format string, args ...any) {
				panic("config: default of " + f.key + ": " + fmt.Sprintf(format, args...))
			})
		}
		switch {
		case stated:
			f.codec.decode(f, v, s, dst, func(at, format string, args ...any) { t.errorAt(f.key, at, format, args...) })
		case f.required:
			t.errorf(f.key, "is missing")
		}
		if f.set != "" {
			s.FieldByName(f.set).SetBool(stated)
		}
	}
	t.unknownKeys(fields)
}

func (t *table) unknownKeys(fields []field) {
	names, aliases := keyNames(fields)
	for _, key := range slices.Sorted(maps.Keys(t.values)) {
		if slices.Contains(names, key) {
			continue
		}
		section := t.path[0]
		switch {
		case slices.Contains(later, section+"."+key) && len(t.path) == 2:
			t.errorf(key, "is not available in this version")
		case aliases[key] != "":
			t.errorf(key, "unknown key (did you mean %q?)", aliases[key])
		case nearest(key, names) != "":
			t.errorf(key, "unknown key (did you mean %q?)", nearest(key, names))
		case elsewhere(section, key) != nil:
			t.errorf(key, "does not belong here (it is a key of [%s])", dotted(elsewhere(section, key)(t.path)))
		case len(names) <= 12:
			t.errorf(key, "unknown key (allowed: %s)", strings.Join(names, ", "))
		default:
			t.errorf(key, "unknown key (see supervisord config reference)")
		}
	}
}

// elsewhere finds the table of the same section that knows a key: it returns a
// function from the path of the table where the key was found to the right one.
func elsewhere(name, key string) func(path []string) []string {
	sec := sectionOf(name)
	if sec == nil {
		return nil
	}
	own, _ := keyNames(sec.keys)
	if slices.Contains(own, key) {
		return func(path []string) []string { return path[:2] }
	}
	for _, f := range sec.keys {
		if names, _ := keyNames(f.table); slices.Contains(names, key) {
			return func(path []string) []string { return append(path[:2:2], f.key) }
		}
	}
	return nil
}
