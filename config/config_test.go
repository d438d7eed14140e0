package config

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

var ignoreFiles = cmpopts.IgnoreFields(Config{}, "File", "Files")

func mustParse(t interface {
	Helper()
	Fatalf(string, ...any)
}, text, dir string) *Config {
	t.Helper()
	c, err := Parse("test.toml", []byte(text), dir)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return c
}

// roundTrip checks that the effective configuration is the same configuration.
func roundTrip(t interface {
	Helper()
	Fatalf(string, ...any)
}, c *Config) {
	t.Helper()
	again := mustParse(t, c.Effective(), "")
	if diff := cmp.Diff(c, again, ignoreFiles); diff != "" {
		t.Fatalf("Effective() is another configuration (- was, + is):\n%s\n%s", diff, c.Effective())
	}
	for i := range c.Pools {
		if c.Pools[i].Fingerprint() != again.Pools[i].Fingerprint() {
			t.Fatalf("pool %s has another fingerprint", c.Pools[i].Name)
		}
	}
}

// TestEveryKey sets each key of the schema by itself: the result must differ, must
// survive Effective, and new workers are needed exactly when the schema says so.
func TestEveryKey(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, sampleFiles)
	document := func(prefix, key, value string) string {
		set := func(p, text string) string {
			if p == prefix && key != "" {
				if key == "address" || key == "command" || key == "from" {
					text = ""
				}
				text += key + " = " + value + "\n"
			}
			return text
		}
		address := "address = \":80\"\n"
		if strings.Contains("mode owner group readable_all writable_all", key) && prefix == "listener" && key != "" {
			address = "address = \"unix:x.sock\"\n"
		}
		return "[supervisor]\n" + set("supervisor", "") + "[control]\n" + set("control", "") +
			"[listener.web]\n" + set("listener", address) + "[listener.other]\naddress = \":81\"\n" +
			"[pool.web]\n" + set("pool", "command = [\"./web\"]\n") +
			"[pool.web.rollout]\n" + set("pool.rollout", "") + "[pool.web.limits]\n" + set("pool.limits", "")
	}
	plain := mustParse(t, document("", "", ""), dir)
	roundTrip(t, plain)
	var walk func(prefix string, fields []field)
	walk = func(prefix string, fields []field) {
		for _, f := range fields {
			if f.table != nil {
				walk(prefix+"."+f.key, f.table)
				continue
			}
			values, known := samples[prefix+"."+f.key]
			if !known {
				t.Errorf("%s.%s: no sample", prefix, f.key)
			}
			for _, value := range values {
				t.Run(fmt.Sprintf("%s.%s=%s", prefix, f.key, value), func(t *testing.T) {
					c := mustParse(t, document(prefix, f.key, value), dir)
					if cmp.Equal(plain, c, ignoreFiles) && value != `"other"` {
						t.Error("the key has no effect")
					}
					roundTrip(t, c)
					same := c.Pools[0].Fingerprint() == plain.Pools[0].Fingerprint()
					if want := f.applies == "reload" || !strings.HasPrefix(prefix, "pool"); same != want && value != `"0027"` && value != `"-missing.env"` {
						t.Errorf("same fingerprint: %v, want %v", same, want)
					}
				})
			}
		}
	}
	for _, sec := range sections {
		walk(sec.name, sec.keys)
	}
}

// TestEffectiveRoundTrips draws configurations from the samples.
func TestEffectiveRoundTrips(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, sampleFiles)
	sockets := []struct{ address, keys string }{
		{"%d.0.0.1:80", "linger backlog no_delay keep_alive defer_accept fast_open free_bind receive_buffer send_buffer"},
		{":%d", "ipv6_only backlog no_delay"},
		{"[fe80::%d%%eth0]:0", "linger ipv6_only free_bind"},
		{"udp:127.0.0.%d:53", "linger free_bind receive_buffer"},
		{"unix:run/%d.sock", "mode owner group readable_all writable_all backlog"},
		{"unixgram:/run/\\\"%d\\\".sock", "mode linger"},
		{"unixpacket:@name {%d}", "backlog send_buffer"},
		{"systemd:x%d", "linger"},
	}
	rapid.Check(t, func(t *rapid.T) {
		none := func(string) bool { return false }
		var b strings.Builder
		b.WriteString("[supervisor]\n" + drawTable(t, "supervisor", sectionOf("supervisor").keys, none))
		b.WriteString("[control]\n" + drawTable(t, "control", sectionOf("control").keys, none))
		var names []string
		for i := range rapid.IntRange(0, 4).Draw(t, "listeners") {
			socket := rapid.SampledFrom(sockets).Draw(t, "socket")
			key := "address"
			if strings.HasPrefix(socket.address, "systemd") {
				key = "from"
			}
			names = append(names, fmt.Sprintf("%q", fmt.Sprintf("l%d", i)))
			fmt.Fprintf(&b, "[listener.l%d]\n%s = \"%s\"\n", i, key, fmt.Sprintf(socket.address, i+1))
			b.WriteString(drawTable(t, "listener", sectionOf("listener").keys, func(key string) bool {
				return !strings.Contains(" "+socket.keys+" ", " "+key+" ")
			}))
		}
		for i := range rapid.IntRange(0, 3).Draw(t, "pools") {
			pool := sectionOf("pool").keys
			fmt.Fprintf(&b, "[pool.p%d]\n", i)
			text := drawTable(t, "pool", pool, func(key string) bool { return key == "listeners" || key == "start_timeout" })
			if !strings.Contains("\n"+text, "\ncommand =") {
				text += "command = [\"./web\"]\n"
			}
			fmt.Fprintf(&b, "%sstart_timeout = \"2h\"\nlisteners = [%s]\n", text, strings.Join(names, ", "))
			for _, f := range pool {
				if f.table != nil {
					fmt.Fprintf(&b, "[pool.p%d.%s]\n%s", i, f.key, drawTable(t, "pool."+f.key, f.table, none))
				}
			}
		}
		roundTrip(t, mustParse(t, b.String(), dir))
	})
}

func FuzzParse(f *testing.F) {
	f.Add(exampleTOML)
	f.Add(string(defaultTOML))
	for _, path := range []string{"types", "combinations", "unknown", "addresses", "shape"} {
		f.Add(readTestdata(f, "errors/"+path+".toml"))
	}
	noNetwork(f)
	f.Fuzz(func(t *testing.T, text string) {
		c, err := Parse("fuzz.toml", []byte(text), "")
		if (c == nil) == (err == nil) {
			t.Fatalf("%v, %v", c, err)
		}
		if err == nil {
			roundTrip(t, c)
		}
	})
}
