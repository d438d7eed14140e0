package config

import (
	"fmt"
	"io/fs"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/f72e338e/supervisord/internal/proto"
)

// A codec turns a value of the TOML decoder into a struct field and back.
type codec struct {
	name string // for the reference
	// decode sets dst, a field of the struct s, or reports what is wrong.
	decode func(f *field, v any, s, dst reflect.Value, report reporter)
	// encode returns the value as TOML, or "" to leave the key out.
	encode func(f *field, s, v reflect.Value) string
}

// reporter takes a problem with a value: with all of it, with one element, or with
// the key at in it.
type reporter func(at, format string, args ...any)

const whole = ""

func element(i int) string { return "#" + strconv.Itoa(i) }

// codecs by the name in the reference; codecFor chooses.
var codecs = map[string]*codec{}

func init() {
	for _, c := range []codec{
		{"string", decodeString, encodeString},
		{"true or false", decodeBool, encodeBool},
		{"integer", decodeInt, encodeInt},
		{"list of strings", decodeStrings, encodeStrings},
		{"list of integers", decodeInts, encodeInts},
		{"table of strings", decodeEnv, encodeEnv},
		{"duration", decodeDuration, encodeDuration},
		{"permissions", decodeMode, encodeMode},
		{"size", decodeSize, encodeSize},
		{"integer or unlimited", decodeLimit, encodeLimit},
		{"size or unlimited", decodeLimit, encodeLimit},
		{"integer or auto", decodeWorkers, encodeWorkers},
		{"list of rules", decodeRules, encodeRules},
		{"readiness", decodeReady, encodeReady},
	} {
		*codecNamed(c.name) = c
	}
}

// codecNamed returns the codec of a name. It may be filled in later: the schema
// is read while package variables are initialized, before init.
func codecNamed(name string) *codec {
	if codecs[name] == nil {
		codecs[name] = &codec{}
	}
	return codecs[name]
}

func codecFor(sf reflect.StructField) *codec {
	switch sf.Tag.Get("codec") {
	case "workers":
		return codecNamed("integer or auto")
	case "ready":
		return codecNamed("readiness")
	}
	bytes := sf.Tag.Get("unit") == "bytes"
	t := sf.Type
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch t {
	case reflect.TypeFor[string]():
		return codecNamed("string")
	case reflect.TypeFor[bool]():
		return codecNamed("true or false")
	case reflect.TypeFor[int]():
		if bytes {
			return codecNamed("size")
		}
		return codecNamed("integer")
	case reflect.TypeFor[[]string]():
		return codecNamed("list of strings")
	case reflect.TypeFor[[]int]():
		return codecNamed("list of integers")
	case reflect.TypeFor[map[string]string]():
		return codecNamed("table of strings")
	case reflect.TypeFor[time.Duration]():
		return codecNamed("duration")
	case reflect.TypeFor[fs.FileMode]():
		return codecNamed("permissions")
	case reflect.TypeFor[uint64]():
		if bytes {
			return codecNamed("size or unlimited")
		}
		return codecNamed("integer or unlimited")
	case reflect.TypeFor[[]proto.BindRule]():
		return codecNamed("list of rules")
	}
	panic(fmt.Sprintf("config: no codec for %s", sf.Type))
}

// store sets dst, or what it points to, to v.
func store(dst reflect.Value, v any) {
	if dst.Kind() == reflect.Pointer {
		dst.Set(reflect.New(dst.Type().Elem()))
		dst = dst.Elem()
	}
	dst.Set(reflect.ValueOf(v).Convert(dst.Type()))
}

// load is the inverse: ok is false for a nil pointer.
func load(v reflect.Value) (reflect.Value, bool) {
	if v.Kind() == reflect.Pointer {
		return v.Elem(), !v.IsNil()
	}
	return v, true
}

// describe names a value of the TOML decoder.
func describe(v any) string {
	switch v := v.(type) {
	case string:
		return "a string"
	case bool:
		return "true or false"
	case int64:
		return "an integer"
	case float64:
		return "a float"
	case time.Time:
		return "a date or time"
	case []any:
		return "a list"
	case []map[string]any:
		return "a list of tables"
	case map[string]any:
		return "a table"
	default:
		return fmt.Sprintf("%T", v)
	}
}

// scalar is the text of a value that was meant to be a string, or "".
func scalar(v any) string {
	switch v.(type) {
	case bool, int64, float64:
		return fmt.Sprint(v)
	}
	return ""
}

// quoteTOML returns s as a basic string of TOML.
func quoteTOML(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r < 0x20 || r == 0x7f:
			fmt.Fprintf(&b, `\u%04X`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// quoteKey returns s as a key of TOML, bare where that is possible.
func quoteKey(s string) string {
	if validName(s) {
		return s
	}
	return quoteTOML(s)
}

// quoteAll returns "a", "b", "c".
func quoteAll(list []string) string {
	quoted := make([]string, len(list))
	for i, s := range list {
		quoted[i] = strconv.Quote(s)
	}
	return strings.Join(quoted, ", ")
}
