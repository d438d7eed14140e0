//go:build !linux

package worker

import "github.com/f72e338e/supervisord/fdpass"

// memberPage exists on Linux only, where there is a master.
type memberPage struct{}

func newMemberPage(f *fdpass.File) (*memberPage, error) {
	_ = f.Close()
	return nil, fdpass.ErrNotSupported
}

func (p *memberPage) accepted()       {}
func (p *memberPage) closed()         {}
func (p *memberPage) set(_, _ uint64) {}
