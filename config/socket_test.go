package config

import (
	"os"
	"path/filepath"
	"testing"
)

// TestControlSocket: whatever else is wrong in a file, its daemon is found.
func TestControlSocket(t *testing.T) {
	for text, want := range map[string]string{
		"[control]\nsocket = \"/run/x.sock\"\n[pool.web]\nworkers = \"x\"": "/run/x.sock",
		"nonsense = 1\n[pool.web]\n":                                       "",
		"[control]\nsocket = 7\n":                                          "",
		"[control]\nsocket = \"relative\"\n":                               "",
		"[control]\nsocket = \"/run/x.sock\"\n[[[":                         "an error",
	} {
		path := filepath.Join(t.TempDir(), "supervisord.toml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := ControlSocket(path)
		if err != nil {
			got = "an error"
		}
		if got != want {
			t.Errorf("%q: %q, want %q (%v)", text, got, want, err)
		}
	}
}
