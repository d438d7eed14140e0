//go:build !unix

package refworker

// stopSelf does nothing where a process cannot stop itself.
func stopSelf() {}
