package main

import (
	"github.com/spf13/cobra"

	"github.com/f72e338e/supervisord/internal/api"
)

func newReload(g *global) *cobra.Command {
	w := &waiting{}
	cmd := &cobra.Command{
		Use:   "reload",
		Short: "Load the configuration again and roll out what changed",
		Long: `Load the configuration again. A bad one changes nothing: every error is listed and
the exit code is 3. Every new socket is bound first, all or nothing; then the pools
whose workers would run differently are rolled out, the successor first. When a new
worker fails the old ones serve on, and the exit code is 1.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return g.command(w, api.PathReload, struct{}{}, "", "reloaded")
		},
	}
	w.flags(cmd)
	return cmd
}
