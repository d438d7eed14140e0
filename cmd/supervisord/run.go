package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/f72e338e/supervisord/config"
	"github.com/f72e338e/supervisord/internal/keeper"
	"github.com/f72e338e/supervisord/master"
	"github.com/f72e338e/supervisord/systemd"
)

func newRun(g *global) *cobra.Command {
	var listen []string
	var workers, protocol string
	var noKeeper bool
	cmd := &cobra.Command{
		Use:   "run [flags] [-- command [argument...]]",
		Short: "Run the daemon in the foreground",
		Long: `Run the daemon in the foreground, until SIGTERM or SIGINT.

Without a file and without a command it serves the embedded default: two reference
workers on 127.0.0.1:8124. With a command after -- no file is read:

  supervisord run --listen 127.0.0.1:8080 --workers 4 -- ./app

Signals: HUP reload, TERM and INT graceful stop (the second one fast), QUIT fast
stop, USR1 reopen output files, TTIN and TTOU one worker more or less.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			o := master.Options{Socket: g.socketPath(), Version: versionText(), Output: os.Stdout, Log: os.Stderr,
				Label: isTerminal(1), Times: os.Getenv("JOURNAL_STREAM") == ""}
			kept, err := keeper.Kept()
			if err != nil {
				return &exitError{code: exitFailed, err: err}
			}
			cfg, err := loadForRun(g, cmd, &o, listen, workers, protocol, args)
			if err != nil && !master.LeftBehind() {
				return configError(err)
			}
			if err != nil { // what runs goes on
				fmt.Fprintln(os.Stderr, "supervisord: the configuration cannot be read, so the one that is in force is used:", err)
			}
			o.Config = cfg
			if o.Notify, o.Kept = kept, kept != nil; kept == nil {
				o.Notify = systemd.NewNotifier()
				if o.Kept, err = o.Notify.HasStore(storeAnswer); err != nil {
					fmt.Fprintln(os.Stderr, "supervisord: does the service manager keep files?", err)
				}
				if !o.Kept && !noKeeper {
					code, err := keeper.Run(keeper.Options{Program: "/proc/self/exe", Args: os.Args, Log: os.Stderr, Times: o.Times, Watchdog: hangs})
					if err != nil {
						return &exitError{code: exitFailed, err: err}
					}
					return &exitError{code: code, quiet: true, err: errors.New("ended")}
				}
			}
			m, err := master.New(o)
			if err != nil {
				return &exitError{code: exitFailed, err: err}
			}
			code, err := m.Run(context.Background())
			if err == nil && code != 0 {
				err = errors.New("ended because a pool reached its restart limit")
			}
			if err != nil {
				return &exitError{code: code, err: err}
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.BoolVar(&noKeeper, "no-keeper", false, "run without a parent that starts another master after a crash")
	f.StringArrayVar(&listen, "listen", nil, "`address` to listen on for the command: host:port, or unix:/path; may be repeated")
	f.StringVar(&workers, "workers", "1", "`number` of workers of the command, or auto")
	f.StringVar(&protocol, "protocol", "native", "how master and command speak: native, node, systemd or none")
	return cmd
}

const (
	// storeAnswer is how long the service manager may take to say whether it keeps files.
	storeAnswer = 5 * time.Second
	// hangs is after which time without a word the keeper takes a master for hung.
	hangs = time.Minute
)

// loadForRun finds the configuration: flags, a file, or the embedded default.
func loadForRun(g *global, cmd *cobra.Command, o *master.Options, listen []string, workers, protocol string, args []string) (*config.Config, error) {
	if len(args) > 0 {
		if g.config != "" {
			return nil, &exitError{code: exitUsage, err: errors.New("a command after -- and a configuration file exclude each other")}
		}
		return config.FromFlags(listen, workers, protocol, args)
	}
	for _, name := range []string{"listen", "workers", "protocol"} {
		if cmd.Flags().Changed(name) {
			return nil, &exitError{code: exitUsage, err: fmt.Errorf("--%s is for a command after --: supervisord run --%s ... -- ./app", name, name)}
		}
	}
	path, err := config.Find(g.config)
	if err != nil {
		return nil, err
	}
	load := func() (*config.Config, error) { return loadFile(path) }
	if path != "" {
		o.Load = load
	}
	return load()
}

// loadFile is the one loader of run, reload and check.
func loadFile(path string) (*config.Config, error) {
	if path != "" {
		return config.Load(path)
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return config.Default(self)
}

func configError(err error) error {
	var ee *exitError
	if errors.As(err, &ee) {
		return err
	}
	return &exitError{code: exitConfig, err: err}
}

func isTerminal(fd int) bool {
	_, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	return err == nil
}
