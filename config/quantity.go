package config

import (
	"fmt"
	"io/fs"
	"math/bits"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// parseDuration reads a duration of Go's notation. The problem is for humans.
func parseDuration(v any) (d time.Duration, problem string) {
	const how = `"500ms", "30s", "1h30m"`
	s, ok := v.(string)
	switch n := v.(type) {
	case int64, float64:
		return 0, fmt.Sprintf("a duration needs a unit (write \"%vs\")", n)
	}
	if !ok {
		return 0, fmt.Sprintf("must be a duration such as %s, is %s", how, describe(v))
	}
	d, err := time.ParseDuration(s)
	if err == nil {
		if d == 0 && strings.TrimLeft(s, "+-0") == "" {
			return 0, `a duration needs a unit (write "0s")`
		}
		return d, ""
	}
	if _, err := strconv.ParseFloat(s, 64); err == nil {
		return 0, fmt.Sprintf("a duration needs a unit (write \"%ss\")", s)
	}
	if days, isDays := strings.CutSuffix(s, "d"); isDays {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			return 0, fmt.Sprintf("the longest unit is the hour (write \"%dh\")", n*24)
		}
	}
	return 0, fmt.Sprintf("%q is not a duration (such as %s)", s, how)
}

func decodeDuration(f *field, v any, _, dst reflect.Value, report reporter) {
	d, problem := parseDuration(v)
	switch {
	case problem != "":
		report(whole, "%s", problem)
	case int64(d) < f.min:
		report(whole, "%q is out of range (at least %s)", v, formatDuration(time.Duration(f.min)))
	case int64(d) > f.max:
		report(whole, "%q is out of range (at most %s)", v, formatDuration(time.Duration(f.max)))
	default:
		store(dst, d)
	}
}

func encodeDuration(_ *field, _, v reflect.Value) string {
	v, ok := load(v)
	if !ok {
		return ""
	}
	return quoteTOML(formatDuration(time.Duration(v.Int())))
}

// formatDuration is Duration.String without the zeros: "10m", not "10m0s".
func formatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// decodeMode reads permission bits, which are octal as chmod(1) takes them. TOML
// integers are refused: 660 would silently be another mode than 0660.
func decodeMode(f *field, v any, _, dst reflect.Value, report reporter) {
	s, ok := v.(string)
	if !ok {
		example := "0660"
		if f.hasDefault {
			example = f.def
		}
		report(whole, "must be octal permission bits in a string, is %s (write %q)", describe(v), example)
		return
	}
	n, err := strconv.ParseUint(s, 8, 32)
	if err != nil || n > 0o777 || len(s) < 3 || len(s) > 4 {
		report(whole, `%q are no permission bits (three octal digits, with a 0 before them or not: "0660")`, s)
		return
	}
	store(dst, fs.FileMode(n))
}

func encodeMode(_ *field, _, v reflect.Value) string {
	v, ok := load(v)
	if !ok {
		return ""
	}
	return fmt.Sprintf(`"%04o"`, v.Uint())
}

var units = []struct {
	name  string
	bytes uint64
}{
	{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10},
	{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}, {"KB", 1e3}, {"B", 1},
}

// parseSize reads a size with a unit.
func parseSize(v any) (size uint64, problem string) {
	s, ok := v.(string)
	if n, isInt := v.(int64); isInt {
		return 0, fmt.Sprintf("a size needs a unit (write \"%dB\", or KiB, MiB, GiB)", n)
	}
	if !ok {
		return 0, fmt.Sprintf(`must be a size such as "512MiB", is %s`, describe(v))
	}
	for _, u := range units {
		digits, found := strings.CutSuffix(s, u.name)
		if !found {
			continue
		}
		n, err := strconv.ParseUint(strings.TrimSpace(digits), 10, 64)
		high, low := bits.Mul64(n, u.bytes)
		if err != nil {
			break
		}
		if high != 0 || low == Unlimited {
			return 0, fmt.Sprintf("%q is too large", s)
		}
		return low, ""
	}
	if _, err := strconv.ParseUint(s, 10, 64); err == nil {
		return 0, fmt.Sprintf("a size needs a unit (write \"%sB\", or KiB, MiB, GiB)", s)
	}
	return 0, fmt.Sprintf(`%q is not a size (such as "64KiB", "512MiB", "2GB")`, s)
}

func decodeSize(f *field, v any, _, dst reflect.Value, report reporter) {
	n, problem := parseSize(v)
	switch {
	case problem != "":
		report(whole, "%s", problem)
	case n > uint64(f.max) || n < uint64(f.min):
		report(whole, "%q is out of range (%s to %s)", v, formatSize(uint64(f.min)), formatSize(uint64(f.max)))
	default:
		store(dst, n)
	}
}

func encodeSize(_ *field, _, v reflect.Value) string {
	if v.Int() == 0 {
		return ""
	}
	return quoteTOML(formatSize(uint64(v.Int())))
}

// formatSize writes a size in the largest binary unit that is exact.
func formatSize(n uint64) string {
	for _, u := range units[:4] {
		if n >= u.bytes && n%u.bytes == 0 {
			return strconv.FormatUint(n/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatUint(n, 10) + "B"
}

func decodeLimit(f *field, v any, _, dst reflect.Value, report reporter) {
	if v == "unlimited" {
		store(dst, Unlimited)
		return
	}
	if f.bytes {
		n, problem := parseSize(v)
		if problem != "" {
			report(whole, `%s; or "unlimited"`, problem)
			return
		}
		store(dst, n)
		return
	}
	if _, isString := v.(string); isString {
		report(whole, `must be an integer or "unlimited", is %q`, v)
		return
	}
	if n, ok := f.integer(v, whole, report); ok {
		store(dst, uint64(n))
	}
}

func encodeLimit(f *field, _, v reflect.Value) string {
	v, ok := load(v)
	switch {
	case !ok:
		return ""
	case v.Uint() == Unlimited:
		return `"unlimited"`
	case f.bytes:
		return quoteTOML(formatSize(v.Uint()))
	}
	return strconv.FormatUint(v.Uint(), 10)
}
