package config

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/BurntSushi/toml"
)

// ControlSocket returns [control] socket of a file that Load refuses, "" when it names
// none: a client is to find its daemon whatever else is wrong there. Errors: those of
// reading the file, and of TOML that cannot be parsed.
func ControlSocket(path string) (string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	var file struct {
		Control struct{ Socket any }
	}
	if _, err := toml.Decode(string(text), &file); err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	socket, _ := file.Control.Socket.(string)
	if !filepath.IsAbs(socket) {
		return "", nil
	}
	return socket, nil
}
