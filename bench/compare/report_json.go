package main

import (
	"encoding/json"
	"io"
)

// json writes the report for programs. Keys are the names of the tables.
func (r *report) json(w io.Writer) error {
	type row struct {
		Target     string             `json:"target"`
		Scheduling string             `json:"scheduling"`
		Processors string             `json:"gomaxprocs"`
		Failed     bool               `json:"failed"`
		Medians    map[metric]float64 `json:"medians"`
		Rounds     []sample           `json:"rounds"`
	}
	type jsonTable struct {
		Load    string `json:"load"`
		About   string `json:"about"`
		Case    string `json:"case"`
		Workers int    `json:"workers"`
		Targets []row  `json:"targets"`
	}
	out := struct {
		Tables  []jsonTable `json:"tables"`
		Must    []verdict   `json:"must"`
		Skipped []skipped   `json:"not_available"`
		Remarks []remark    `json:"remarks"`
		Failed  []failure   `json:"failed"`
	}{[]jsonTable{}, r.verdicts(), r.skipped, r.remarks, r.failures}
	for _, t := range r.tables {
		jt := jsonTable{t.load.name, t.load.about, t.scenario, t.workers, []row{}}
		for _, name := range t.board.names {
			one := row{name, t.scheduling[name], t.processors[name], t.board.failed[name] != nil, map[metric]float64{}, nil}
			for _, m := range allMetrics {
				if v, ok := t.board.median(name, m); ok {
					one.Medians[m] = v
				}
			}
			for _, round := range t.board.rounds {
				one.Rounds = append(one.Rounds, round[name])
			}
			jt.Targets = append(jt.Targets, one)
		}
		out.Tables = append(out.Tables, jt)
	}
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(out)
}
