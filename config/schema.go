package config

import (
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// A field is one key of the schema: a struct field and its tags.
//
//	key       the key in the file; fields without it are derived
//	default   in the file's own notation, strings without quotes
//	values    the strings allowed, separated by spaces; later: known to the design, not yet to the code
//	min, max  the range of a number, a size or a duration; min is 0 unless stated
//	for       the kinds of socket a listener's key applies to: tcp, ip, stream or path
//	applies   "reload": a reload applies it to running workers; "restart": it replaces them
//	alias     names of the same thing in other programs, for "did you mean"
//	codec     the codec where the type does not say it; unit: "bytes" for sizes
//	set       a bool field of the same struct that says whether the key is stated
//	doc       a sentence for the reference; 'x' becomes code
type field struct {
	key, def, applies, kind, doc string
	values, later, alias         []string
	min, max                     int64
	hasDefault, required, bytes  bool
	set                          string
	index                        int
	codec                        *codec
	table                        []field // of a table: its keys
}

// section is a table of the file.
type section struct {
	name string // "listener": every table below it is one listener
	many bool
	doc  string
	keys []field
}

var sections = []section{
	{"supervisor", false, "The master itself.", fieldsOf[Supervisor]()},
	{"control", false, "The control socket, by which the commands find the master.", fieldsOf[Control]()},
	{"listener", true, "A socket that the master binds and gives to workers. NAME is 1 to 64 letters, digits, _ or -.", fieldsOf[listenerKeys]()},
	{"pool", true, "One command, run a number of times. NAME is 1 to 64 letters, digits, _ or -.", fieldsOf[Pool]()},
}

var includeField = field{
	key: "include", applies: "reload", codec: codecNamed("list of strings"),
	doc: "Further files, relative to the directory of the main file, read in the order of their names: 'conf.d/*.toml'. They hold listeners and pools only. Relative paths in them are relative to the directory of the main file, too.",
}

// later lists tables and keys of the design that this version does not have.
var later = []string{
	"http", "pool.max_requests", "pool.max_memory", "pool.max_age",
	"pool.before_rollout", "pool.start_after", "pool.probe",
}

func sectionOf(name string) *section {
	for i := range sections {
		if sections[i].name == name {
			return &sections[i]
		}
	}
	return nil
}

// fieldsOf reads the schema of a struct. It panics on a tag that makes no sense:
// a mistake in this package, found by any test.
func fieldsOf[T any]() []field { return readFields(reflect.TypeFor[T]()) }

func readFields(t reflect.Type) []field {
	var fields []field
	for i := range t.NumField() {
		sf := t.Field(i)
		key, ok := sf.Tag.Lookup("key")
		if !ok {
			continue
		}
		f := field{
			key: key, index: i, doc: sf.Tag.Get("doc"), applies: sf.Tag.Get("applies"), kind: sf.Tag.Get("for"), set: sf.Tag.Get("set"),
			values: strings.Fields(sf.Tag.Get("values")), later: strings.Fields(sf.Tag.Get("later")), alias: strings.Fields(sf.Tag.Get("alias")),
			required: sf.Tag.Get("required") != "", bytes: sf.Tag.Get("unit") == "bytes", max: math.MaxInt64,
		}
		f.def, f.hasDefault = sf.Tag.Lookup("default")
		if sf.Type.Kind() == reflect.Struct {
			f.table = readFields(sf.Type)
			fields = append(fields, f)
			continue
		}
		f.codec = codecFor(sf)
		f.readRange(sf.Tag)
		if f.applies != "reload" && f.applies != "restart" {
			panic(fmt.Sprintf("config: %s: bad applies tag", key))
		}
		fields = append(fields, f)
	}
	return fields
}

func (f *field) readRange(tag reflect.StructTag) {
	for name, bound := range map[string]*int64{"min": &f.min, "max": &f.max} {
		text, ok := tag.Lookup(name)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			d, err := time.ParseDuration(text)
			if err != nil {
				panic(fmt.Sprintf("config: %s: bad %s tag", f.key, name))
			}
			n = int64(d)
		}
		*bound = n
	}
}

// keyNames returns the keys of a table; with aliases those that others use are
// mapped to ours.
func keyNames(fields []field) (names []string, aliases map[string]string) {
	aliases = map[string]string{}
	for i := range fields {
		names = append(names, fields[i].key)
		for _, a := range fields[i].alias {
			aliases[a] = fields[i].key
		}
	}
	return names, aliases
}

// defaultValue is the default as the TOML decoder would have returned it.
func (f *field) defaultValue() any {
	if n, err := strconv.ParseInt(f.def, 10, 64); err == nil && !strings.HasPrefix(f.def, "0") || f.def == "0" {
		return n
	}
	if b, err := strconv.ParseBool(f.def); err == nil {
		return b
	}
	return f.def
}
