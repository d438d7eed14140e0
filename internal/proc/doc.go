//go:build linux

// Package proc starts processes, signals them, waits for them and takes over
// those that an earlier master started. It knows no worker, no pool and no
// configuration: a [Launch] is complete, in numbers and descriptors.
//
// A process starts through a stage: this same binary, executed again from
// /proc/self/exe, which sets limits, identity and directory in a process of its
// own and then executes the command. So no thread of the master ever changes its
// identity, and what fails comes back as a sentence with the errno ([StageError]).
// Every program that calls [Start] calls [Stage] first thing in main, test
// binaries in TestMain.
//
// A started process leads its own session and process group, with the signal
// mask empty and every signal at its default, and with exactly the descriptors
// 0, 1, 2 and Launch.Files. There is no PDEATHSIG: it fires when the forking
// thread ends.
//
// # Ownership
//
// Start borrows every file of the Launch; they may be closed when it returns. A
// [Process] owns its pidfd; [Process.PIDFile] lends it, [Process.Close] closes
// it. Signals go through the pidfd only, so none can reach a process that got
// the number of a dead one.
//
// # Example
//
//	func main() {
//		proc.Stage() // does not return in a stage
//		p, err := proc.Start(proc.Launch{Command: []string{"./web"}, Env: os.Environ(), UID: -1, GID: -1, Umask: -1})
//		if err != nil { ... }             // no process
//		if err := p.Started(); err != nil { // "cannot execute ./web: no such file or directory"
//			...
//		}
//		exit, err := p.Wait()
//		_ = p.Close()
//	}
package proc
