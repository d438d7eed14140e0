package main

import (
	"fmt"
	"io"
	"strings"
)

// report is all that was measured. The zero value is ready.
type report struct {
	tables   []*table
	skipped  []skipped
	failures []failure
	remarks  []remark
}

// table is the outcome of one workload.
type table struct {
	scenario   string
	workers    int
	load       workload
	board      *board
	scheduling map[string]string // by target
	processors map[string]string
	likeInC    map[string]string
}

type skipped struct {
	Target string `json:"target"`
	Reason string `json:"reason"`
}

type failure struct {
	Load   string `json:"load"`
	Target string `json:"target"`
	Error  string `json:"error"`
}

// remark is what was odd about the load, which is no failure of the target.
type remark struct {
	Load   string `json:"load"`
	Target string `json:"target"`
	Text   string `json:"text"` // the first time
	Times  int    `json:"times"`
}

// skip notes a target that is not available; false when that is known already.
func (r *report) skip(target, reason string) bool {
	for _, s := range r.skipped {
		if s.Target == target {
			return false
		}
	}
	r.skipped = append(r.skipped, skipped{target, reason})
	return true
}

func (r *report) fail(load, target string, err error) {
	r.failures = append(r.failures, failure{load, target, err.Error()})
}

func (r *report) remark(load, target, text string) {
	for i := range r.remarks {
		if m := &r.remarks[i]; m.Load == load && m.Target == target {
			m.Times++
			return
		}
	}
	r.remarks = append(r.remarks, remark{load, target, text, 1})
}

func (r *report) add(sc scenario, w workload, servers []*server, b *board) {
	t := &table{scenario: sc.name, workers: sc.workers, load: w, board: b, scheduling: map[string]string{}, processors: map[string]string{}, likeInC: map[string]string{}}
	for _, s := range servers {
		t.scheduling[s.name], t.processors[s.name], t.likeInC[s.name] = s.scheduling(), s.processors(), s.likeInC()
	}
	r.tables = append(r.tables, t)
}

// table returns that of a workload, nil when it was not measured.
func (r *report) table(load string) *table {
	for _, t := range r.tables {
		if t.load.name == load {
			return t
		}
	}
	return nil
}

// base resolves the name of a base for a target.
func (t *table) base(target, base string) string {
	if base == sameInC {
		return t.likeInC[target]
	}
	return base
}

// verdicts judges all musts.
func (r *report) verdicts() []verdict {
	var list []verdict
	for _, m := range musts {
		list = append(list, m.judge(r))
	}
	return list
}

// text writes the report for people.
func (r *report) text(w io.Writer) error {
	var b strings.Builder
	for _, t := range r.tables {
		t.text(&b)
	}
	fmt.Fprintf(&b, "\n%-56s %10s %10s\n", "must", "measured", "wanted")
	for _, v := range r.verdicts() {
		fmt.Fprintf(&b, "%-56s %10s %10s  %s\n", v.Must, figure(v.Measured, "%.2f"), v.Wanted, v.Verdict)
	}
	section(&b, "not available:", r.skipped, func(s skipped) string { return s.Target + ": " + s.Reason })
	section(&b, "remarks (no failures):", r.remarks, func(m remark) string {
		return fmt.Sprintf("%s: %s: %d times, first: %s", m.Load, m.Target, m.Times, m.Text)
	})
	section(&b, "failed:", r.failures, func(f failure) string { return f.Load + ": " + f.Target + ": " + f.Error })
	_, err := io.WriteString(w, b.String())
	return err
}

func section[T any](b *strings.Builder, title string, list []T, line func(T) string) {
	if len(list) > 0 {
		fmt.Fprintf(b, "\n%s\n", title)
	}
	for _, x := range list {
		fmt.Fprintf(b, "  %s\n", line(x))
	}
}

// text writes one table: medians, then what they are by others.
func (t *table) text(b *strings.Builder) {
	fmt.Fprintf(b, "\n%s: %s; medians of %d\n%-26s %-8s %5s", t.load.name, t.load.about, len(t.board.rounds), "", "sched", "procs")
	for _, m := range t.load.columns {
		fmt.Fprintf(b, " %9s", m)
	}
	for i := range bases {
		if t.load.ratio != "" {
			fmt.Fprintf(b, " %9s", shortBases[i])
		}
	}
	if t.load.minus != "" {
		fmt.Fprintf(b, " %9s", "- shared")
	}
	b.WriteString("\n")
	for _, name := range t.board.names {
		t.row(b, name)
	}
	if t.load.ratio != "" {
		fmt.Fprintf(b, "ratios are of %s, round by round; /C: to the dispatcher in C under the same scheduling\n", t.load.ratio)
	}
}

// shortBases are the headers of the columns of bases.
var shortBases = []string{"/plain", "/plain P1", "/Node rr", "/C"}

func (t *table) row(b *strings.Builder, name string) {
	fmt.Fprintf(b, "%-26s %-8s %5s", name, t.scheduling[name], t.processors[name])
	if t.board.failed[name] != nil {
		b.WriteString(" failed\n")
		return
	}
	for _, m := range t.load.columns {
		fmt.Fprintf(b, " %9s", t.cell(m.form())(t.board.median(name, m)))
	}
	for _, base := range bases {
		if t.load.ratio != "" {
			fmt.Fprintf(b, " %9s", t.cell("%.2f")(t.board.ratio(name, t.base(name, base), t.load.ratio)))
		}
	}
	if t.load.minus != "" {
		fmt.Fprintf(b, " %9s", t.cell("%+.0f")(t.board.difference(name, "shared", t.load.minus)))
	}
	b.WriteString("\n")
}

// cell formats what a board returns.
func (t *table) cell(form string) func(float64, bool) string {
	return func(v float64, ok bool) string {
		if !ok {
			return figure(nil, form)
		}
		return figure(&v, form)
	}
}

// figure formats a number that may be missing.
func figure(v *float64, form string) string {
	if v == nil {
		return "-"
	}
	return fmt.Sprintf(form, *v)
}

// form is how a metric is printed.
func (m metric) form() string {
	switch m {
	case crowded:
		return "%.2f"
	case cpu, master:
		return "%.1f"
	}
	return "%.0f"
}
