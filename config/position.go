package config

import (
	"strconv"
	"strings"
)

// positions tells on which line each key of a TOML text stands. The decoder knows
// positions only for syntax errors, so they are found by a second look at the
// text.
//
// A key is found by its path; elements of arrays by the path of the array and
// their index. Keys of tables within arrays have the path without the index, and
// the first one counts.
type positions map[string]position

type position struct {
	line    int
	implied bool // only named as the parent of another table
}

func pathKey(path []string) string { return strings.Join(path, "\x00") }

func elementKey(path []string, i int) string { return pathKey(path) + "\x00" + element(i) }

// line returns the line of path, or of its nearest ancestor that is known, or 0.
func (p positions) line(path ...string) int {
	for ; len(path) > 0; path = path[:len(path)-1] {
		if at, ok := p[pathKey(path)]; ok {
			return at.line
		}
	}
	return 0
}

func (p positions) record(key string, line int, implied bool) {
	if old, ok := p[key]; !ok || old.implied && !implied {
		p[key] = position{line, implied}
	}
}

// recordPath records a key and, as implied, the tables it makes on the way.
func (p positions) recordPath(path []string, from, line int) {
	for n := from + 1; n < len(path); n++ {
		p.record(pathKey(path[:n]), line, true)
	}
	p.record(pathKey(path), line, false)
}

// scanPositions finds the keys of text, which is valid TOML. Of a text that is
// not it finds some keys, at any line, and never fails: it then goes on with the
// next line.
func scanPositions(text string) positions {
	s := scanner{text: strings.TrimPrefix(text, "\ufeff"), line: 1, found: positions{}}
	var table []string
	for s.skipBlank(); s.at < len(s.text); s.skipBlank() {
		if s.text[s.at] == '[' {
			s.at++
			s.accept('[')
			line := s.line
			if path, ok := s.key(); ok {
				table = path
				s.found.recordPath(path, 0, line)
			}
			s.skipLine()
			continue
		}
		if !s.pair(table, 0) {
			s.skipLine()
		}
	}
	return s.found
}

type scanner struct {
	text  string
	at    int
	line  int
	lists int // how many lists the value is in: only elements of the outermost are recorded
	found positions
}

// maxDepth is how deep values may be nested before the scanner gives up on them.
const maxDepth = 200

func (s *scanner) peek() byte {
	if s.at < len(s.text) {
		return s.text[s.at]
	}
	return 0
}

func (s *scanner) accept(c byte) bool {
	if s.at < len(s.text) && s.text[s.at] == c {
		s.at++
		return true
	}
	return false
}

// advance moves n bytes on and counts the lines.
func (s *scanner) advance(n int) {
	n = min(n, len(s.text)-s.at)
	s.line += strings.Count(s.text[s.at:s.at+n], "\n")
	s.at += n
}

func (s *scanner) skipSpace() {
	for s.peek() == ' ' || s.peek() == '\t' {
		s.at++
	}
}

// skipBlank skips white space, line ends and comments.
func (s *scanner) skipBlank() {
	for s.at < len(s.text) {
		switch s.text[s.at] {
		case ' ', '\t', '\r', '\n':
			s.advance(1)
		case '#':
			s.skipLine()
		default:
			return
		}
	}
}

// skipLine goes behind the next line end.
func (s *scanner) skipLine() {
	if i := strings.IndexByte(s.text[s.at:], '\n'); i >= 0 {
		s.advance(i + 1)
		return
	}
	s.at = len(s.text)
}

// pair reads "key = value" in a table.
func (s *scanner) pair(table []string, depth int) bool {
	line := s.line
	key, ok := s.key()
	if !ok || !s.accept('=') {
		return false
	}
	path := append(table[:len(table):len(table)], key...)
	s.found.recordPath(path, len(table), line)
	s.skipSpace()
	return s.value(path, depth)
}

// key reads a dotted key and the space around it.
func (s *scanner) key() ([]string, bool) {
	var path []string
	for {
		s.skipSpace()
		part, ok := s.keyPart()
		if !ok {
			return nil, false
		}
		path = append(path, part)
		s.skipSpace()
		if !s.accept('.') {
			return path, true
		}
	}
}

func (s *scanner) keyPart() (string, bool) {
	if c := s.peek(); c == '"' || c == '\'' {
		start := s.at + 1
		if !s.quoted(string(c), c == '"') {
			return "", false
		}
		text := s.text[start : s.at-1]
		if c == '"' {
			text = unescape(text)
		}
		return text, true
	}
	start := s.at
	for s.at < len(s.text) && !strings.ContainsRune(" \t\r\n.=[]{}#,\"'", rune(s.text[s.at])) {
		s.at++
	}
	return s.text[start:s.at], s.at > start
}

// value skips a value and records the keys and elements in it.
func (s *scanner) value(path []string, depth int) bool {
	if depth > maxDepth {
		return false
	}
	rest := s.text[s.at:]
	switch {
	case strings.HasPrefix(rest, `"""`), strings.HasPrefix(rest, `'''`):
		return s.quoted(rest[:3], rest[0] == '"')
	case strings.HasPrefix(rest, `"`), strings.HasPrefix(rest, `'`):
		return s.quoted(rest[:1], rest[0] == '"')
	case s.accept('['):
		s.lists++
		defer func() { s.lists-- }()
		return s.list(']', func(i int) bool {
			if s.lists == 1 {
				s.found.record(elementKey(path, i), s.line, false)
			}
			return s.value(path, depth+1)
		})
	case s.accept('{'):
		return s.list('}', func(int) bool { return s.pair(path, depth+1) })
	}
	n := strings.IndexAny(rest, ",]}#\n")
	if n < 0 {
		n = len(rest)
	}
	s.advance(n)
	return n > 0
}

// list reads elements up to the end byte, which is consumed.
func (s *scanner) list(end byte, element func(i int) bool) bool {
	for i := 0; ; i++ {
		s.skipBlank()
		if s.accept(end) {
			return true
		}
		if s.at >= len(s.text) || !element(i) {
			return false
		}
		s.skipBlank()
		s.accept(',')
	}
}

// quoted skips a string with its quotes. A multi-line one may end in up to two
// more quotes than it needs: they belong to it.
func (s *scanner) quoted(quote string, escapes bool) bool {
	s.at += len(quote)
	for s.at < len(s.text) {
		switch {
		case escapes && s.text[s.at] == '\\':
			s.advance(2)
		case strings.HasPrefix(s.text[s.at:], quote):
			s.at += len(quote)
			for range len(quote) - 1 {
				s.accept(quote[0])
			}
			return true
		case s.text[s.at] == '\n' && len(quote) == 1:
			return false
		default:
			s.advance(1)
		}
	}
	return false
}

// unescape resolves the escapes of a basic string of TOML. What is not an escape
// stays as it is.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		i++
		digits := map[byte]int{'x': 2, 'u': 4, 'U': 8}[s[i]]
		if code, err := strconv.ParseUint(s[min(i+1, len(s)):min(i+1+digits, len(s))], 16, 32); digits > 0 && err == nil {
			b.WriteRune(rune(code))
			i += digits
		} else if j := strings.IndexByte(`btnfre"\`, s[i]); j >= 0 {
			b.WriteByte("\b\t\n\f\r\x1b\"\\"[j])
		} else {
			b.WriteString(s[i-1 : i+1])
		}
	}
	return b.String()
}
