package proto

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestBindRule(t *testing.T) {
	type request struct {
		network, address string
		port             int
	}
	tests := []struct {
		rule, text string // text: "" = as rule
		yes, no    []request
	}{
		{rule: "127.0.0.1:9000-9099",
			yes: []request{{"tcp", "127.0.0.1", 9000}, {"udp4", "127.0.0.1", 9099}, {"tcp", "::ffff:127.0.0.1", 9050}},
			no: []request{{"tcp", "127.0.0.1", 8999}, {"tcp", "127.0.0.1", 9100}, {"tcp", "127.0.0.2", 9000},
				{"tcp", "", 9000}, {"tcp", "0.0.0.0", 9000}, {"unix", "127.0.0.1", 9000}, {"tcp", "127.0.0.1", 0}}},
		{rule: "127.0.0.1:9000-9000", text: "127.0.0.1:9000",
			yes: []request{{"tcp", "127.0.0.1", 9000}}, no: []request{{"tcp", "127.0.0.1", 9001}}},
		{rule: "*:8000-8999",
			yes: []request{{"tcp", "", 8000}, {"udp", "10.0.0.1", 8999}, {"tcp6", "::1", 8500}},
			no:  []request{{"tcp", "", 80}, {"unix", "/run/x", 8000}}},
		{rule: "[::1]:53", yes: []request{{"udp6", "::1", 53}, {"tcp", "0:0::1", 53}}, no: []request{{"tcp", "::", 53}}},
		{rule: "udp:*:53", yes: []request{{"udp", "", 53}, {"udp6", "::1", 53}}, no: []request{{"tcp", "", 53}}},
		{rule: "tcp:[fe80::1%eth0]:53", yes: []request{{"tcp", "fe80::1%eth0", 53}}, no: []request{{"tcp", "fe80::1", 53}}},
		{rule: "[::]:80", yes: []request{{"tcp", "", 80}, {"tcp", "::", 80}}, no: []request{{"tcp4", "", 80}, {"tcp", "0.0.0.0", 80}}},
		{rule: "0.0.0.0:80", yes: []request{{"tcp4", "", 80}, {"tcp", "0.0.0.0", 80}}, no: []request{{"tcp", "", 80}}},
		{rule: "*:0", yes: []request{{"tcp", "", 0}}, no: []request{{"tcp", "", 1}}},
		{rule: "/run/app/",
			yes: []request{{"unix", "/run/app/x", 0}, {"unixgram", "/run//app/./x/y.sock", 7}},
			no: []request{{"unix", "/run/app", 0}, {"unix", "/run/app/", 0}, {"unix", "/run/app/../x", 0},
				{"unix", "/run/app/link/../x", 0}, {"unix", "/run/application", 0}, {"unix", "run/app/x", 0},
				{"unix", "@/run/app/x", 0}, {"tcp", "/run/app/x", 0}, {"unix", "/run/app/x\x00y", 0}}},
		{rule: "/run/app/x.sock", yes: []request{{"unix", "/run/app//x.sock", 0}}, no: []request{{"unix", "/run/app/x.sock/y", 0}}},
		{rule: "/run//app/./", text: "/run/app/", yes: []request{{"unix", "/run/app/x", 0}}},
		{rule: "/", yes: []request{{"unix", "/x", 0}}, no: []request{{"unix", "/", 0}, {"unix", "/x/../../y", 0}}},
		{rule: "@name", yes: []request{{"unix", "@name", 0}}, no: []request{{"unix", "@name2", 0}, {"unix", "name", 0}}},
		{rule: "@name*", yes: []request{{"unix", "@name", 0}, {"unix", "@name/../2", 0}}, no: []request{{"unix", "@nam", 0}, {"unix", "/@name", 0}}},
		{rule: "@*", yes: []request{{"unixpacket", "@x", 0}}, no: []request{{"unix", "/x", 0}}},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			r, err := ParseBindRule(tt.rule)
			if err != nil {
				t.Fatal(err)
			}
			if tt.text == "" {
				tt.text = tt.rule
			}
			if r.String() != tt.text {
				t.Errorf("String() = %q, want %q", r.String(), tt.text)
			}
			for _, q := range tt.yes {
				if !r.Allows(q.network, q.address, q.port) {
					t.Errorf("refuses %+v", q)
				}
			}
			for _, q := range tt.no {
				if r.Allows(q.network, q.address, q.port) {
					t.Errorf("allows %+v", q)
				}
			}
		})
	}
	if (BindRule{}).Allows("tcp", "", 0) || (BindRule{}).Allows("unix", "", 0) {
		t.Error("the zero rule allows something")
	}
}

func TestBindRuleRefused(t *testing.T) {
	for rule, want := range map[string]string{
		"":                   "needs an address",
		"8080":               "needs an address",
		":8080":              `write "*:8080"`,
		"localhost:80":       "not an IP address",
		"::1:80":             "in brackets",
		"[127.0.0.1]:80":     "in brackets",
		"127.0.0.1:":         "not a port",
		"127.0.0.1:65536":    "not a port",
		"127.0.0.1:-1":       "not a port",
		"127.0.0.1:1-2-3":    "not a port",
		"127.0.0.1:9-8":      "empty",
		"@":                  "must not be empty",
		"/run/../etc/":       `".."`,
		"tcp:/run/x":         "needs an address",
		"unix:*:80":          "not an IP address",
		"/run/*.sock":        `takes no "*"`,
		"/run/a\x00":         "NUL",
		"udp:tcp:10.0.0.1:1": "not an IP address",
	} {
		if r, err := ParseBindRule(rule); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseBindRule(%q) = %+v, %v; want an error with %q", rule, r, err, want)
		}
	}
}

func TestBindRuleJSON(t *testing.T) {
	text := `["udp:*:53","/run/app/","@x*"]`
	var rules []BindRule
	if err := json.Unmarshal([]byte(text), &rules); err != nil {
		t.Fatal(err)
	}
	if out, err := json.Marshal(rules); err != nil || string(out) != text {
		t.Errorf("got %s, %v", out, err)
	}
	if err := json.Unmarshal([]byte(`["x"]`), &rules); err == nil {
		t.Error("a bad rule was accepted")
	}
}

func FuzzBindRule(f *testing.F) {
	for _, s := range []string{"127.0.0.1:9000-9099", "*:1", "udp:[::1%x]:53", "/run/app/", "@a*", "/..", "/."} {
		f.Add(s, "/run/app/../x")
	}
	f.Fuzz(func(t *testing.T, s, address string) {
		r, err := ParseBindRule(s)
		if err != nil {
			return
		}
		again, err := ParseBindRule(r.String())
		if err != nil || again != r {
			t.Fatalf("%q: %+v becomes %q, which is %+v, %v", s, r, r.String(), again, err)
		}
		if r.Allows("unix", address, 0) && strings.HasPrefix(address, "/") && escapes(address) {
			t.Fatalf("%q allows %q", s, address)
		}
	})
}
