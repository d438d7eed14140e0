package config

import (
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/f72e338e/supervisord/internal/proto"
)

// maxWorkers keeps a typing mistake from filling the machine with processes.
const maxWorkers = 10000

func decodeWorkers(f *field, v any, s, dst reflect.Value, report reporter) {
	auto := s.FieldByName("WorkersAuto")
	if v == "auto" {
		auto.SetBool(true)
		store(dst, processors())
		return
	}
	if n, isString := v.(string); isString {
		if _, err := strconv.Atoi(n); err != nil {
			report(whole, `must be an integer or "auto", is %q`, n)
			return
		}
	}
	limited := *f
	limited.max = min(f.max, maxWorkers)
	if n, ok := limited.integer(v, whole, report); ok {
		auto.SetBool(false)
		store(dst, n)
	}
}

func encodeWorkers(_ *field, s, v reflect.Value) string {
	if s.FieldByName("WorkersAuto").Bool() {
		return `"auto"`
	}
	return strconv.FormatInt(v.Int(), 10)
}

func decodeReady(_ *field, v any, s, dst reflect.Value, report reporter) {
	const allowed = `allowed: "notify", "listening", "delay:2s"`
	t, ok := text(v, whole, report)
	if !ok {
		return
	}
	delay, isDelay := strings.CutPrefix(t, "delay:")
	switch {
	case t == "delay":
		report(whole, `a delay has to be stated (write "delay:2s")`)
	case isDelay:
		d, problem := parseDuration(delay)
		if problem == "" && d < 0 {
			problem = "must not be negative"
		}
		if problem != "" {
			report(whole, "after delay: %s", problem)
			return
		}
		s.FieldByName("ReadyDelay").SetInt(int64(d))
		store(dst, "delay")
	case t == "notify", t == "listening":
		store(dst, t)
	default:
		report(whole, "unknown value %q (%s)", t, allowed)
	}
}

func encodeReady(_ *field, s, v reflect.Value) string {
	if v.String() == "delay" {
		return quoteTOML("delay:" + formatDuration(time.Duration(s.FieldByName("ReadyDelay").Int())))
	}
	return quoteTOML(v.String())
}

func decodeRules(_ *field, v any, _, dst reflect.Value, report reporter) {
	l, ok := list(v, "strings", report)
	if !ok {
		return
	}
	var out []proto.BindRule
	for i, e := range l {
		s, ok := text(e, element(i), report)
		if !ok {
			continue
		}
		r, err := proto.ParseBindRule(s)
		if err != nil {
			report(element(i), "%q: %v", s, err)
			continue
		}
		out = append(out, r)
	}
	dst.Set(reflect.ValueOf(out))
}

func encodeRules(_ *field, _, v reflect.Value) string {
	if v.Len() == 0 {
		return "[]"
	}
	return encodeList(v, func(e reflect.Value) string { return quoteTOML(e.Interface().(proto.BindRule).String()) })
}
