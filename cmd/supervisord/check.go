package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/f72e338e/supervisord/config"
)

func newCheck(g *global) *cobra.Command {
	var show bool
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check the configuration, with the loader that run uses",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			path, err := config.Find(g.config)
			if err != nil {
				return configError(err)
			}
			cfg, err := loadFile(path)
			if err != nil {
				return configError(err)
			}
			if show {
				fmt.Print(cfg.Effective())
				return nil
			}
			name := path
			if name == "" {
				name = "embedded default"
			}
			fmt.Printf("%s: %d listeners, %d pools, no errors\n", name, len(cfg.Listeners), len(cfg.Pools))
			return nil
		},
	}
	cmd.Flags().BoolVarP(&show, "print", "p", false, "print the effective configuration, every default filled in")
	return cmd
}
