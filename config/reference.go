package config

import (
	_ "embed"
	"fmt"
	"math"
	"regexp"
	"strings"
	"time"
)

//go:embed example.toml
var exampleTOML string

const introduction = `# Configuration

<!-- Generated from the schema in package config. Do not edit: run "go generate ./config". -->

supervisord reads one TOML file: the one named with ` + "`-c`" + `, else ` + "`./supervisord.toml`" + `, else
` + "`/etc/supervisord/supervisord.toml`" + `, else an embedded default: two reference workers on 127.0.0.1:8124.
` + "`supervisord check`" + ` reads it exactly as ` + "`run`" + ` does and reports everything that is wrong in one go, each as
` + "`file:line: key: problem`" + `; ` + "`check -p`" + ` prints what holds, with every default filled in.

` + "```toml\n%s```" + `

* A **duration** is a string with units: ` + "`\"500ms\"`, `\"30s\"`, `\"1h30m\"`" + `. A **size** has a unit, too: ` + "`\"64KiB\"`, `\"512MiB\"`, `\"2GB\"`" + `.
  **Permissions** are octal digits in a string: ` + "`\"0660\"`" + `. Bare numbers are refused.
* Relative paths are relative to the directory of the main file, also those in included files.
* **Applies** says what a changed key needs. *reload*: running workers go on, the new value holds from then on.
  *workers*: a reload replaces the workers concerned, a few at a time and without losing a connection.
  *master*: it holds from the next start or upgrade of the master.
`

// Reference returns the reference of all keys, in Markdown, as in
// docs/configuration.md.
func Reference() string {
	var b strings.Builder
	fmt.Fprintf(&b, introduction, exampleTOML)
	b.WriteString("\n## Top level\n")
	writeReference(&b, "", []field{includeField})
	for _, sec := range sections {
		path := sec.name
		if sec.many {
			path += ".NAME"
		}
		fmt.Fprintf(&b, "\n## [%s]\n\n%s\n", path, sec.doc)
		writeReference(&b, sec.name, sec.keys)
		for _, f := range sec.keys {
			if f.table != nil {
				fmt.Fprintf(&b, "\n### [%s.%s]\n", path, f.key)
				writeReference(&b, sec.name, f.table)
			}
		}
	}
	return b.String()
}

func writeReference(b *strings.Builder, section string, fields []field) {
	b.WriteString("\n| key | value | default | applies | |\n|---|---|---|---|---|\n")
	for i := range fields {
		f := &fields[i]
		if f.table != nil {
			continue
		}
		fmt.Fprintf(b, "| `%s` | %s | %s | %s | %s |\n", f.key, f.valueText(), f.defaultText(), f.appliesText(section), f.docText())
	}
}

// valueText says what the key takes.
func (f *field) valueText() string {
	if len(f.values) > 0 {
		return "`\"" + strings.Join(f.values, "\"`, `\"") + "\"`"
	}
	name := f.codec.name
	switch {
	case strings.HasPrefix(name, "integer") && f.max != math.MaxInt64:
		name += fmt.Sprintf(", %d to %d", f.min, f.max)
	case strings.HasPrefix(name, "integer") && !f.bytes:
		name += fmt.Sprintf(", at least %d", f.min)
	case name == "size":
		name += fmt.Sprintf(", %s to %s", formatSize(uint64(f.min)), formatSize(uint64(f.max)))
	case name == "duration" && f.max != math.MaxInt64 && f.min > 0:
		name += ", " + formatDuration(time.Duration(f.min)) + " to " + formatDuration(time.Duration(f.max))
	case name == "duration" && f.max != math.MaxInt64:
		name += ", at most " + formatDuration(time.Duration(f.max))
	case name == "duration" && f.min > 0:
		name += ", at least " + formatDuration(time.Duration(f.min))
	}
	return name
}

func (f *field) defaultText() string {
	if f.required {
		return "required"
	}
	if !f.hasDefault {
		return ""
	}
	if s, ok := f.defaultValue().(string); ok {
		return "`" + quoteTOML(s) + "`"
	}
	return "`" + f.def + "`"
}

func (f *field) appliesText(section string) string {
	switch {
	case f.applies == "reload":
		return "reload"
	case section == "control":
		return "master"
	}
	return "workers"
}

var (
	codeInDoc = regexp.MustCompile(`'([^']+)'`)
	kindNotes = map[string]string{
		"tcp": "Only tcp.", "ip": "Only tcp and udp.", "stream": "Not for datagrams.", "path": "Only Unix sockets with a path.",
	}
)

// docText is the sentence of the schema with 'x' as code and what would break the
// table escaped.
func (f *field) docText() string {
	doc := strings.NewReplacer("|", `\|`, "*", `\*`).Replace(f.doc)
	doc = codeInDoc.ReplaceAllStringFunc(doc, func(s string) string {
		return "`" + strings.ReplaceAll(strings.Trim(s, "'"), `\*`, "*") + "`"
	})
	if note := kindNotes[f.kind]; note != "" {
		doc += " " + note
	}
	return doc
}
