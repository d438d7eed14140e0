package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/f72e338e/supervisord/internal/api"
)

func newEvents(g *global) *cobra.Command {
	var follow, asJSON bool
	cmd := &cobra.Command{
		Use:   "events",
		Short: "Show what happened, and with -f what happens",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			ctx, cancel := interruptible()
			defer cancel()
			c, err := g.dial(ctx)
			if err != nil {
				return err
			}
			err = c.Events(ctx, follow, func(e api.Event) error {
				if asJSON {
					return json.NewEncoder(os.Stdout).Encode(e)
				}
				_, err := fmt.Println(describe(e))
				return err
			})
			if err != nil && !errors.Is(err, context.Canceled) {
				return failed(err)
			}
			return nil
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with the events that come")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print each event as a line of JSON")
	return cmd
}
