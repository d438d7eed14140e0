package main

import (
	"github.com/spf13/cobra"

	"github.com/f72e338e/supervisord/internal/api"
)

func newRestart(g *global) *cobra.Command {
	w := &waiting{}
	cmd := &cobra.Command{
		Use:   "restart [pool]",
		Short: "Replace the workers of a pool, or of all, one after the other",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			req := api.RestartRequest{}
			if len(args) > 0 {
				req.Pool = args[0]
			}
			return g.command(w, api.PathRestart, req, req.Pool, "restarted")
		},
	}
	w.flags(cmd)
	return cmd
}
