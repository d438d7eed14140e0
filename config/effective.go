package config

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"reflect"
	"strings"
)

// Effective returns the configuration as TOML with every default filled in: names
// are resolved and paths absolute. Parse makes the same configuration of it again,
// but for File and Files, as long as the environment files stay as they are.
func (c *Config) Effective() string {
	var b strings.Builder
	writeTable(&b, sectionOf("supervisor").keys, reflect.ValueOf(&c.Supervisor).Elem(), nil, "supervisor")
	writeTable(&b, sectionOf("control").keys, reflect.ValueOf(&c.Control).Elem(), nil, "control")
	for i := range c.Listeners {
		ln := &c.Listeners[i]
		keys := keysOf(ln)
		means := func(f *field) bool {
			ok, _ := f.applicable(&ln.Spec)
			return ok && (ln.Spec.Inherit == "" || fromKeys[f.key])
		}
		writeTable(&b, sectionOf("listener").keys, reflect.ValueOf(&keys).Elem(), means, "listener", ln.Name)
	}
	for i := range c.Pools {
		p := &c.Pools[i]
		writeTable(&b, sectionOf("pool").keys, reflect.ValueOf(p).Elem(), nil, "pool", p.Name)
	}
	return b.String()
}

// writeTable writes a table and those within it. means says which keys mean
// anything there; nil = all.
func writeTable(b *strings.Builder, fields []field, s reflect.Value, means func(*field) bool, path ...string) {
	if b.Len() > 0 {
		b.WriteByte('\n')
	}
	fmt.Fprintf(b, "[%s]\n", dotted(path))
	for i := range fields {
		f := &fields[i]
		if f.table != nil || means != nil && !means(f) {
			continue
		}
		if text := f.encode(s); text != "" {
			fmt.Fprintf(b, "%s = %s\n", f.key, text)
		}
	}
	for _, f := range fields {
		if f.table != nil {
			writeTable(b, f.table, s.Field(f.index), nil, append(path[:len(path):len(path)], f.key)...)
		}
	}
}

// encode returns the value of the key in the struct s as TOML, "" to leave it out.
func (f *field) encode(s reflect.Value) string {
	if f.set != "" && !s.FieldByName(f.set).Bool() {
		return ""
	}
	return f.codec.encode(f, s, s.Field(f.index))
}

// Fingerprint returns a short text that differs for two pools when going from one
// to the other needs new workers: when a key of the schema that says "restart"
// differs, the resolved users or what the environment file holds. What a reload
// applies to running workers leaves it as it is. The listeners count by name only:
// a change of what they bind is for the caller to see.
func (p *Pool) Fingerprint() string {
	h := sha256.New()
	fmt.Fprintf(h, "1\nuid %d gid %d groups %v\nenv_file %q\n", p.UID, p.GID, p.Groups, p.EnvFileVars)
	s := reflect.ValueOf(p).Elem()
	for _, f := range sectionOf("pool").keys {
		if f.table == nil {
			f.writeRestart(h, s)
			continue
		}
		for _, inner := range f.table {
			inner.writeRestart(h, s.Field(f.index))
		}
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

func (f *field) writeRestart(w io.Writer, s reflect.Value) {
	if f.applies == "restart" {
		fmt.Fprintf(w, "%s %s\n", f.key, f.codec.encode(f, s, s.Field(f.index)))
	}
}
