package proto

import (
	"bufio"
	"os"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// document returns docs/protocol.md, and its blocks of a kind line by line.
func document(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("../../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func blocks(doc, kind string) (lines []string) {
	in := false
	for s := bufio.NewScanner(strings.NewReader(doc)); s.Scan(); {
		switch line := s.Text(); {
		case line == "```"+kind:
			in = true
		case strings.HasPrefix(line, "```"):
			in = false
		case in && line != "":
			lines = append(lines, line)
		}
	}
	return lines
}

// section returns what stands under the heading of a message.
func section(doc, name string) string {
	_, rest, ok := strings.Cut(doc, "\n### "+name+"\n")
	if !ok {
		return ""
	}
	text, _, _ := strings.Cut(rest, "\n#")
	return text
}

// Every example is what Encode writes, so that nobody copies a wrong one.
func TestDocumentExamples(t *testing.T) {
	doc, seen := document(t), map[string]bool{}
	for _, line := range blocks(doc, "json") {
		e, err := Decode([]byte(line))
		if err != nil {
			t.Errorf("%s: %v", line, err)
			continue
		}
		seen[e.Body.Type()] = true
		if got, err := Encode(e); err != nil || string(got) != line {
			t.Errorf("example is not what is sent:\n  %s\n  %s %v", line, got, err)
		}
	}
	for name := range decoders {
		if !seen[name] {
			t.Errorf("no example of %s", name)
		}
	}
}

func TestDocumentSession(t *testing.T) {
	lines := blocks(document(t), "session")
	if len(lines) == 0 {
		t.Fatal("no session")
	}
	for _, line := range lines {
		part := strings.SplitN(line, " ", 3)
		if len(part) != 3 || part[0] != "worker" && part[0] != "master" {
			t.Fatalf("line of a session: %s", line)
		}
		e, err := Decode([]byte(part[2]))
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if got, err := Encode(e); err != nil || string(got) != part[2] {
			t.Errorf("session is not what is sent:\n  %s\n  %s %v", part[2], got, err)
		}
		if part[1] != strconv.Itoa(len(part[2])) {
			t.Errorf("%d bytes, the document says %s: %s", len(part[2]), part[1], part[2])
		}
	}
}

// Every message has a section that names each of its members, and no section is
// about a message that does not exist.
func TestDocumentFields(t *testing.T) {
	doc := document(t)
	for name, dec := range decoders {
		text := section(doc, name)
		if text == "" {
			t.Errorf("no section about %s", name)
			continue
		}
		m, err := dec([]byte("{}"))
		if err != nil {
			t.Fatal(err)
		}
		for _, field := range members(reflect.TypeOf(m)) {
			if !strings.Contains(text, "`"+field+"`") {
				t.Errorf("section %s does not name `%s`", name, field)
			}
		}
	}
	for _, m := range regexp.MustCompile(`(?m)^### (\S+)$`).FindAllStringSubmatch(doc, -1) {
		if decoders[m[1]] == nil {
			t.Errorf("section about an unknown message %s", m[1])
		}
	}
}

// members lists the JSON names of a type, with those of the objects in a list.
func members(typ reflect.Type) (names []string) {
	for i := range typ.NumField() {
		f := typ.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		names = append(names, name)
		if f.Type.Kind() == reflect.Slice && f.Type.Elem().Kind() == reflect.Struct {
			names = append(names, members(f.Type.Elem())...)
		}
	}
	return names
}

func TestDocumentNames(t *testing.T) {
	doc := document(t)
	names := []string{"type", "id", "re", StateStarting, StateReady, StateDraining,
		CodeUnknownMessage, CodeBadMessage, CodeVersion, CodeState,
		"SUPERVISORD_FD", "SUPERVISORD_POOL", "SUPERVISORD_SLOT", "SUPERVISORD_WORKER_ID", "SUPERVISORD_GENERATION"}
	for _, name := range append(names, Networks...) {
		if !strings.Contains(doc, "`"+name+"`") {
			t.Errorf("the document does not name `%s`", name)
		}
	}
	for _, number := range []int{MaxMessage, DefaultBacklog} {
		if !strings.Contains(doc, strconv.Itoa(number)) {
			t.Errorf("the document does not name %d", number)
		}
	}
}
