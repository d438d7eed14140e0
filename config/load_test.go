package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestLoadEmpty: a file without a pool is what a full disk leaves. A daemon that
// reloads it must not stop everything.
func TestLoadEmpty(t *testing.T) {
	for name, text := range map[string]string{"empty": "", "no pool": "[listener.web]\naddress = \":80\"\n", "cut off": "# supervis"} {
		path := filepath.Join(t.TempDir(), "supervisord.toml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(path); err == nil || !strings.Contains(err.Error(), "there is no [pool.NAME]") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Load("/dev/zero"); err == nil || !strings.Contains(err.Error(), "regular file") {
		t.Errorf("a device: %v", err)
	}
}

// Programs of Node expect what Node does, where nothing is said.
func TestNodePolicy(t *testing.T) {
	for text, want := range map[string]string{
		"":                               "round_robin",
		"policy = \"shared\"":            "shared",
		"policy = \"least_connections\"": "least_connections",
		"[pool.other]\ncommand = [\"x\"]\nlisteners = [\"web\"]": "shared",
		"network = \"udp\"": "shared",
	} {
		c, err := Parse("x.toml", []byte("[pool.web]\ncommand = [\"node\"]\nprotocol = \"node\"\nlisteners = [\"web\"]\n[listener.web]\naddress = \"127.0.0.1:80\"\n"+text), t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		if got := c.Listeners[0].Policy; got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}
