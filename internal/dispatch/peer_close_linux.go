package dispatch

import "golang.org/x/sys/unix"

// closeTaken closes a connection that the worker has. If it has let it linger and closed
// it by now this copy is the last, and close(2) waits (socket(7), SO_LINGER).
func (p *peer) closeTaken(fd int) {
	if lingers(fd) {
		p.junk = append(p.junk, fd)
	} else {
		closeRaw(fd)
	}
}

// closeJunk lets a goroutine close what waits for that, and then what came meanwhile: one
// for each worker, since it may cost a thread for as long as the worker likes. Whoever has
// let too much come meanwhile is not heard until that is over.
func (d *Dispatcher) closeJunk(p *peer) {
	if p.closing || p.ended || len(p.junk) == 0 {
		return
	}
	junk := p.junk
	p.junk, p.closing = nil, true
	d.tired = true // see takeBack
	d.aside.Go(func() {
		for _, fd := range junk {
			_ = unix.Close(fd)
		}
		d.do(func() {
			held := len(p.junk) > maxJunk
			p.closing = false
			if d.closeJunk(p); !held {
				return
			}
			if d.serve(p); !p.paused {
				d.hear(p, atOnce, false)
			}
		})
	})
}
