//go:build !linux

package fdpass

// NewPage returns ErrNotSupported.
func NewPage(string) (*File, error) { return nil, ErrNotSupported }
