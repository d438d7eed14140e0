// Command worker is the reference worker of supervisord: an HTTP or echo server
// that says who answered, and that can be told to fail. See "worker --help".
package main

import (
	"os"

	"github.com/f72e338e/supervisord/internal/refworker"
)

func main() { os.Exit(refworker.Run(os.Args[1:], os.Stdout, os.Stderr)) }
