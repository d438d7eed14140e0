// Package refworker is the reference worker: a small HTTP or echo server under
// supervisord that says who answered, and that can be told to fail in the ways
// in which real programs do. The quick start, tests and benchmarks lean on it.
// cmd/worker is its command; cmd/supervisord has it as a hidden subcommand.
//
// It knows the supervisor only through package worker, as any program does.
// [Run] owns everything it opens and returns the exit code; the process is
// expected to end then.
//
//	os.Exit(refworker.Run(os.Args[1:], os.Stdout, os.Stderr))
package refworker
