package main

import (
	"errors"
	"fmt"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/f72e338e/supervisord/internal/api"
)

func newConnections(g *global) *cobra.Command {
	var asJSON bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "connections [pool]",
		Short: "Count the open connections, asking every worker",
		Long: `Count the open connections, asking every worker at once. A worker that does not
answer in time is named as missing; the others are exact. The exit code is 1 when
one is missing.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			ctx, cancel := asking(timeout)
			defer cancel()
			c, err := g.dial(ctx)
			if err != nil {
				return err
			}
			pool := ""
			if len(args) > 0 {
				pool = args[0]
			}
			n, err := c.Connections(ctx, pool, timeout.Milliseconds())
			if errors.Is(err, api.ErrUsage) {
				return &exitError{code: exitUsage, err: err}
			}
			if err != nil {
				return unanswered(err)
			}
			if asJSON {
				if err := printJSON(n); err != nil {
					return failed(err)
				}
			} else {
				t := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
				_, _ = fmt.Fprintln(t, "SLOT\tWORKER\tPID\tCONNECTIONS")
				for _, w := range n.Workers {
					_, _ = fmt.Fprintf(t, "%s/%d\t%d\t%d\t%s\n", w.Pool, w.Slot, w.Worker, w.PID, known(w.Connections))
				}
				for _, w := range n.Missing {
					_, _ = fmt.Fprintf(t, "%s/%d\t%d\t%d\tunknown: %s\n", w.Pool, w.Slot, w.Worker, w.PID, w.Reason)
				}
				_, _ = fmt.Fprintf(t, "\t\ttotal\t%d\n", n.Total)
				_ = t.Flush()
			}
			if len(n.Missing) > 0 {
				return &exitError{code: exitFailed, err: fmt.Errorf("%d of %d workers are missing", len(n.Missing), len(n.Missing)+len(n.Workers))}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().DurationVar(&timeout, "timeout", time.Second, "wait so long for the workers' answers")
	return cmd
}
