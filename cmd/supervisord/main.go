// Command supervisord is the cluster supervisor daemon, and the client that asks
// and commands it. `supervisord help` lists the commands.
package main

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/f72e338e/supervisord/internal/api"
	"github.com/f72e338e/supervisord/internal/proc"
	"github.com/f72e338e/supervisord/internal/refworker"
)

// version is set by the linker for a release.
var version = ""

// Exit codes, a promise.
const (
	exitFailed   = 1
	exitUsage    = 2
	exitConfig   = 3
	exitNoMaster = 4
	exitTimeout  = 5
)

// exitError is an error with the exit code it stands for. With quiet set it was
// told to the user already.
type exitError struct {
	code  int
	err   error
	quiet bool
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

func main() {
	proc.Stage() // does not return in the stage of a worker
	if len(os.Args) > 1 && os.Args[1] == "worker" {
		os.Exit(refworker.Run(os.Args[2:], os.Stdout, os.Stderr))
	}
	os.Exit(run(os.Args[1:]))
}

func run(args []string) int {
	root := newRoot()
	root.SetArgs(args)
	err := root.Execute()
	if err == nil {
		return 0
	}
	var ee *exitError
	if !errors.As(err, &ee) {
		ee = &exitError{code: exitUsage, err: err} // what cobra finds wrong
	}
	if errors.Is(err, api.ErrNoMaster) {
		ee.code = exitNoMaster
	}
	if !ee.quiet {
		fmt.Fprintln(os.Stderr, "supervisord: "+ee.Error())
	}
	return ee.code
}

// global holds the flags that every command has.
type global struct {
	config string
	socket string
}

func newRoot() *cobra.Command {
	g := &global{}
	root := &cobra.Command{
		Use:   "supervisord",
		Short: "Share listening sockets across worker processes, and replace them without losing a connection",
		Long: `supervisord binds sockets, starts workers and hands them the descriptors. Workers
may be replaced, crash or be upgraded: clients see no refused and no reset connection.

It is unrelated to Python's Supervisor, whose daemon bears the same name.`,
		SilenceErrors: true, SilenceUsage: true, Version: versionText(),
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
	}
	root.SetVersionTemplate("supervisord {{.Version}}\n")
	pf := root.PersistentFlags()
	pf.StringVarP(&g.config, "config", "c", "", "configuration `file` (default ./supervisord.toml, /etc/supervisord/supervisord.toml, else the embedded default)")
	pf.StringVar(&g.socket, "socket", "", "control socket `path` (default from the configuration, $SUPERVISORD_SOCKET, or the usual places)")
	root.AddCommand(newRun(g), newCheck(g), newStatus(g), newConnections(g), newEvents(g), newReload(g), newRestart(g), newScale(g), newStop(g), newVersion())
	return root
}

func versionText() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "devel"
}
