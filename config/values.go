package config

import (
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// text returns v when it is a string without a NUL byte, which no path, argument
// or variable can hold.
func text(v any, at string, report reporter) (string, bool) {
	s, ok := v.(string)
	switch {
	case !ok && scalar(v) != "":
		report(at, "must be a string, is %s (write %q)", describe(v), scalar(v))
	case !ok:
		report(at, "must be a string, is %s", describe(v))
	case strings.ContainsRune(s, 0):
		report(at, "must not hold a NUL byte")
		return "", false
	}
	return s, ok
}

func decodeString(f *field, v any, _, dst reflect.Value, report reporter) {
	if _, ok := v.(string); !ok && len(f.values) > 0 {
		report(whole, "must be a string, is %s (allowed: %s)", describe(v), quoteAll(f.values))
		return
	}
	if s, ok := text(v, whole, report); ok && f.allows(s, report) {
		store(dst, s)
	}
}

// allows checks a string against the allowed values.
func (f *field) allows(s string, report reporter) bool {
	switch {
	case len(f.values) == 0 || slices.Contains(f.values, s):
		return true
	case s == "" && !f.hasDefault:
		return true
	case slices.Contains(f.later, s):
		report(whole, "%q is not available in this version (allowed: %s)", s, quoteAll(f.values))
	default:
		report(whole, "unknown value %q (allowed: %s)", s, quoteAll(f.values))
	}
	return false
}

func encodeString(f *field, _, v reflect.Value) string {
	v, ok := load(v)
	if !ok || v.String() == "" && f.def == "" {
		return ""
	}
	return quoteTOML(v.String())
}

func decodeBool(f *field, v any, _, dst reflect.Value, report reporter) {
	b, ok := v.(bool)
	if s, isString := v.(string); isString && (s == "true" || s == "false") {
		report(whole, "must be true or false, is a string (write %s without quotes)", s)
		return
	}
	if !ok {
		report(whole, "must be true or false, is %s", describe(v))
		return
	}
	store(dst, b)
}

func encodeBool(_ *field, _, v reflect.Value) string {
	v, ok := load(v)
	if !ok {
		return ""
	}
	return strconv.FormatBool(v.Bool())
}

// integer returns v when it is an integer in the range of f.
func (f *field) integer(v any, at string, report reporter) (int64, bool) {
	n, ok := v.(int64)
	if s, isString := v.(string); isString {
		if _, err := strconv.ParseInt(s, 10, 64); err == nil {
			report(at, "must be an integer, is a string (write %s without quotes)", s)
			return 0, false
		}
	}
	if !ok {
		report(at, "must be an integer, is %s", describe(v))
		return 0, false
	}
	if n < f.min || n > f.max {
		report(at, "%d is out of range (%s)", n, f.rangeText())
		return 0, false
	}
	return n, true
}

// rangeText is the range of an integer for humans.
func (f *field) rangeText() string {
	if f.max == math.MaxInt64 {
		return fmt.Sprintf("at least %d", f.min)
	}
	return fmt.Sprintf("%d to %d", f.min, f.max)
}

func decodeInt(f *field, v any, _, dst reflect.Value, report reporter) {
	if n, ok := f.integer(v, whole, report); ok {
		store(dst, n)
	}
}

func encodeInt(_ *field, _, v reflect.Value) string {
	v, ok := load(v)
	if !ok {
		return ""
	}
	return strconv.FormatInt(v.Int(), 10)
}

// list returns v when it is a list.
func list(v any, of string, report reporter) ([]any, bool) {
	l, ok := v.([]any)
	if s, isString := v.(string); isString && strings.HasPrefix(of, "string") {
		words := strings.Fields(s)
		if strings.ContainsAny(s, "\"'\\") {
			words = []string{"...", "..."}
		}
		report(whole, "must be a list of %s, is a string (write [%s])", of, quoteAll(words))
		return nil, false
	}
	if !ok {
		report(whole, "must be a list of %s, is %s", of, describe(v))
	}
	return l, ok
}

func decodeStrings(f *field, v any, _, dst reflect.Value, report reporter) {
	l, ok := list(v, "strings", report)
	if !ok {
		return
	}
	var out []string
	for i, e := range l {
		if s, ok := text(e, element(i), report); ok {
			out = append(out, s)
		}
	}
	if f.required && len(out) == 0 && len(l) == 0 {
		report(whole, "must not be empty")
	}
	dst.Set(reflect.ValueOf(out))
}

func encodeStrings(_ *field, _, v reflect.Value) string {
	return encodeList(v, func(e reflect.Value) string { return quoteTOML(e.String()) })
}

func encodeList(v reflect.Value, element func(reflect.Value) string) string {
	if v.Len() == 0 {
		return ""
	}
	elements := make([]string, v.Len())
	for i := range elements {
		elements[i] = element(v.Index(i))
	}
	return "[" + strings.Join(elements, ", ") + "]"
}

// decodeInts reads a set of integers; it comes out sorted.
func decodeInts(f *field, v any, _, dst reflect.Value, report reporter) {
	l, ok := list(v, "integers", report)
	if !ok {
		return
	}
	var out []int
	for i, e := range l {
		if n, ok := f.integer(e, element(i), report); ok {
			out = append(out, int(n))
		}
	}
	slices.Sort(out)
	dst.Set(reflect.ValueOf(slices.Compact(out)))
}

func encodeInts(_ *field, _, v reflect.Value) string {
	return encodeList(v, func(e reflect.Value) string { return strconv.FormatInt(e.Int(), 10) })
}

func decodeEnv(_ *field, v any, _, dst reflect.Value, report reporter) {
	table, ok := v.(map[string]any)
	if !ok {
		report(whole, "must be a table of strings, is %s (write { NAME = \"value\" })", describe(v))
		return
	}
	env := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(table)) {
		if problem := badVariable(name); problem != "" {
			report(name, "%s", problem)
		} else if s, ok := text(table[name], name, report); ok {
			env[name] = s
		}
	}
	if len(env) > 0 {
		dst.Set(reflect.ValueOf(env))
	}
}

func encodeEnv(_ *field, _, v reflect.Value) string {
	env, _ := v.Interface().(map[string]string)
	if len(env) == 0 {
		return ""
	}
	var pairs []string
	for _, name := range slices.Sorted(maps.Keys(env)) {
		pairs = append(pairs, quoteKey(name)+" = "+quoteTOML(env[name]))
	}
	return "{ " + strings.Join(pairs, ", ") + " }"
}

// reserved lists what the master itself puts into the environment of workers.
var reserved = []string{"LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "NODE_CHANNEL_FD", "NODE_CHANNEL_SERIALIZATION_MODE", "NODE_UNIQUE_ID"}

func badVariable(name string) string {
	switch {
	case name == "" || strings.ContainsAny(name, "=\x00"):
		return "is no name of an environment variable"
	case strings.HasPrefix(name, "SUPERVISORD_") || slices.Contains(reserved, name):
		return "is set by the master and cannot be chosen"
	}
	return ""
}
