package main

import (
	"github.com/spf13/cobra"

	"github.com/f72e338e/supervisord/internal/api"
)

func newStop(g *global) *cobra.Command {
	w := &waiting{}
	var fast bool
	cmd := &cobra.Command{
		Use:   "stop",
		Short: "Stop the daemon: drain the workers, then exit",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return g.command(w, api.PathStop, api.StopRequest{Fast: fast}, "", "stopped")
		},
	}
	cmd.Flags().BoolVar(&fast, "fast", false, "do not drain: stop signal at once, SIGKILL after kill_timeout")
	w.flags(cmd)
	return cmd
}
