package main

import "fmt"

// must is a figure that has to be reached: a floor, or a ceiling.
type must struct {
	load   string // name of the workload
	target string
	base   string // what it is divided by, or subtracted; "": the figure itself
	minus  bool
	metric metric
	most   bool // limit is a ceiling
	limit  float64
}

const perFixed = "fixed 1000/s"

var musts = []must{
	{load: "rate", target: "shared", base: plainGo, metric: rate, limit: 1.3},
	{load: "rate", target: "shared", base: plainGo1, metric: rate, limit: 1.0},
	{load: "tail", target: "shared", base: plainGo, metric: p99, most: true, limit: 1.1},
	{load: "rate", target: "round_robin", base: nodeRR, metric: rate, limit: 2.5},
	{load: "rate", target: nodeRROurs, base: nodeRR, metric: rate, limit: 1.2},
	{load: "rate", target: nodeRROurs, base: nodeRR, metric: master, most: true, limit: 1.0 / 3},
	{load: "rate", target: "round_robin", base: sameInC, metric: rate, limit: 0.8},
	{load: "tail", target: "least_connections", base: plainGo, metric: p99, most: true, limit: 1.1},
	{load: "rate", target: "reuse_port", base: "reuse_port, hash", metric: rate, limit: 0.95},
	{load: "tail", target: "reuse_port", base: "reuse_port, hash", metric: p99, most: true, limit: 0.25},
	{load: perFixed, target: "round_robin", base: "shared", minus: true, metric: p50, most: true, limit: 20},
	{load: "spread", target: "round_robin", metric: off, most: true, limit: 1},
	{load: "spread", target: "least_connections", metric: off, most: true, limit: 1},
	{load: "spread", target: "reuse_port", metric: off, most: true, limit: 2},
	{load: "spread", target: "shared", metric: crowded, most: true, limit: 1.5},
}

// String says what is measured: "rate: shared / plain Go, rate/s".
func (m must) String() string {
	text := m.load + ": " + m.target
	switch {
	case m.minus:
		text += " - " + m.base
	case m.base != "":
		text += " / " + m.base
	}
	return text + ", " + string(m.metric)
}

// wanted is the limit: ">= 1.30".
func (m must) wanted() string {
	if m.most {
		return fmt.Sprintf("<= %.2f", m.limit)
	}
	return fmt.Sprintf(">= %.2f", m.limit)
}

// verdict is the outcome of a must.
type verdict struct {
	Must     string   `json:"must"`
	Wanted   string   `json:"wanted"`
	Measured *float64 `json:"measured"` // null: not measured
	Verdict  string   `json:"verdict"`  // "pass", "miss", "not measured"
}

// judge looks the figure up.
func (m must) judge(r *report) verdict {
	v := verdict{Must: m.String(), Wanted: m.wanted(), Verdict: "not measured"}
	t := r.table(m.load)
	if t == nil {
		return v
	}
	var got float64
	var ok bool
	switch {
	case m.base == "":
		got, ok = t.board.median(m.target, m.metric)
	case m.minus:
		got, ok = t.board.difference(m.target, m.base, m.metric)
	default:
		got, ok = t.board.ratio(m.target, t.base(m.target, m.base), m.metric)
	}
	if !ok {
		return v
	}
	v.Measured, v.Verdict = &got, "miss"
	if (m.most && got <= m.limit) || (!m.most && got >= m.limit) {
		v.Verdict = "pass"
	}
	return v
}
