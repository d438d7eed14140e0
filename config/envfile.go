package config

import "strings"

// parseEnvFile reads lines of KEY=VALUE in the main as systemd.exec(5) describes
// EnvironmentFile=: empty lines and those that begin with # or ; are skipped; a
// value may be in single quotes (taken as it is) or double quotes (a backslash
// before ", \, $ and ` quotes them), both may run over several lines, and quoted
// and bare parts may follow each other; outside of quotes a backslash quotes the
// next byte or joins the next line, and space at both ends is dropped. Nothing is
// substituted.
func parseEnvFile(text string, report func(line int, name, problem string)) []string {
	var vars []string
	p := envParser{text: strings.ReplaceAll(strings.TrimPrefix(text, "\ufeff"), "\r\n", "\n"), line: 1}
	for p.at < len(p.text) {
		rest := p.text[p.at:]
		end := strings.IndexByte(rest, '\n')
		if end < 0 {
			end = len(rest)
		}
		line := strings.TrimSpace(rest[:end])
		if line == "" || line[0] == '#' || line[0] == ';' {
			p.skip(end + 1)
			continue
		}
		at := p.line
		name, _, found := strings.Cut(rest[:end], "=")
		if !found {
			report(at, "", "is not KEY=VALUE")
			p.skip(end + 1)
			continue
		}
		p.skip(len(name) + 1)
		name = strings.TrimSpace(name)
		value, problem := p.value()
		switch {
		case problem != "":
			report(at, name, problem)
		case strings.HasPrefix(name, "export "):
			report(at, name, "is no name of an environment variable (leave export out: no shell reads this file)")
		case strings.ContainsAny(name, " \t\"'"):
			report(at, name, "is no name of an environment variable")
		case badVariable(name) != "":
			report(at, name, badVariable(name))
		case strings.ContainsRune(value, 0):
			report(at, name, "must not hold a NUL byte")
		default:
			vars = append(vars, name+"="+value)
		}
	}
	return vars
}

type envParser struct {
	text string
	at   int
	line int
}

func (p *envParser) skip(n int) {
	n = min(n, len(p.text)-p.at)
	p.line += strings.Count(p.text[p.at:p.at+n], "\n")
	p.at += n
}

// value reads up to the end of the line that ends the value.
func (p *envParser) value() (value, problem string) {
	var b strings.Builder
	kept := 0 // length of b up to which space is not dropped
	for p.at < len(p.text) {
		c := p.text[p.at]
		p.skip(1)
		switch {
		case c == '\n':
			return b.String()[:max(kept, len(strings.TrimRight(b.String(), " \t")))], ""
		case c == '\'' || c == '"':
			if !p.quoted(c, &b) {
				return "", "the quote is not closed"
			}
			kept = b.Len()
		case c == '\\' && p.at < len(p.text):
			if p.text[p.at] != '\n' {
				b.WriteByte(p.text[p.at])
				kept = b.Len()
			}
			p.skip(1)
		case (c == ' ' || c == '\t') && b.Len() == 0 && kept == 0:
		default:
			b.WriteByte(c)
		}
	}
	return b.String()[:max(kept, len(strings.TrimRight(b.String(), " \t")))], ""
}

func (p *envParser) quoted(quote byte, b *strings.Builder) bool {
	for p.at < len(p.text) {
		c := p.text[p.at]
		p.skip(1)
		switch {
		case c == quote:
			return true
		case c == '\\' && quote == '"' && p.at < len(p.text):
			next := p.text[p.at]
			p.skip(1)
			switch {
			case next == '\n':
			case strings.IndexByte("\"\\$`", next) >= 0:
				b.WriteByte(next)
			default:
				b.WriteByte(c)
				b.WriteByte(next)
			}
		default:
			b.WriteByte(c)
		}
	}
	return false
}
