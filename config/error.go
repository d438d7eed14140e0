package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Error is one thing that is wrong with a configuration.
type Error struct {
	File    string // as it was named; "" for flags
	Line    int    // from 1; 0 = unknown
	Key     string // dotted, "pool.web.workers"; "" when the problem is not with a key
	Problem string
}

// Error formats the error as "file:line: key: problem", without the parts that
// are empty.
func (e Error) Error() string {
	var b strings.Builder
	if e.File != "" {
		b.WriteString(e.File)
		if e.Line > 0 {
			fmt.Fprintf(&b, ":%d", e.Line)
		}
		b.WriteString(": ")
	}
	if e.Key != "" {
		b.WriteString(e.Key + ": ")
	}
	return b.String() + e.Problem
}

// Errors is everything that is wrong with a configuration, in the order of the
// files and lines. It is never empty when it is returned as an error.
type Errors []Error

// Error joins the errors, one a line.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i := range e {
		lines[i] = e[i].Error()
	}
	return strings.Join(lines, "\n")
}

// sorted puts the errors in the order of files, then of lines, and drops
// repetitions: the same typing mistake may be found in two ways.
func (e Errors) sorted(files []string) Errors {
	slices.SortStableFunc(e, func(a, b Error) int {
		return cmp.Or(
			cmp.Compare(uint(slices.Index(files, a.File)), uint(slices.Index(files, b.File))),
			cmp.Compare(a.File, b.File),
			cmp.Compare(a.Line, b.Line))
	})
	return slices.Compact(e)
}
