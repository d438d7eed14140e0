package main

import (
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/f72e338e/supervisord/internal/api"
)

func newScale(g *global) *cobra.Command {
	w := &waiting{}
	cmd := &cobra.Command{
		Use:   "scale pool number",
		Short: "Set how many workers a pool has",
		Long: `Set how many workers a pool has. It holds over reloads until the number in the
configuration changes.`,
		Args: cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			n, err := strconv.Atoi(args[1])
			if err != nil || n < 0 || n > 10000 {
				return &exitError{code: exitUsage, err: fmt.Errorf("%q is no number of workers (0 to 10000)", args[1])}
			}
			return g.command(w, api.PathScale, api.ScaleRequest{Pool: args[0], Workers: n}, args[0], fmt.Sprintf("pool %s has %d workers", args[0], n))
		},
	}
	w.flags(cmd)
	return cmd
}
