package main

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/f72e338e/supervisord/internal/api"
)

func newStatus(g *global) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show listeners, pools and workers",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			ctx, cancel := asking(0)
			defer cancel()
			c, err := g.dial(ctx)
			if err != nil {
				return err
			}
			s, err := c.Status(ctx)
			if err != nil {
				return unanswered(err)
			}
			if asJSON {
				return printJSON(s)
			}
			// In one write: a reader that has seen enough (grep -q) then does not
			// end the command by SIGPIPE in the middle.
			var out bytes.Buffer
			printStatus(&out, s)
			_, err = os.Stdout.Write(out.Bytes())
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printStatus(w io.Writer, s api.Status) {
	file := cmp.Or(s.Master.Config, "no file")
	_, _ = fmt.Fprintf(w, "master pid %d  %s  up %s  version %s  %s\n", s.Master.PID, s.Master.State, seconds(s.Master.UptimeSeconds), s.Master.Version, file)
	if s.Master.Degraded != "" {
		_, _ = fmt.Fprintln(w, "degraded:", s.Master.Degraded)
	}
	if s.Master.LostOutput > 0 {
		_, _ = fmt.Fprintf(w, "%d lines of output were dropped: nobody reads the master's output fast enough\n", s.Master.LostOutput)
	}
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	_, _ = fmt.Fprintln(t, "\nLISTENER\tADDRESS\tPOLICY\tBACKLOG\tQUEUED\tHOLDERS\tASKED BY")
	for _, l := range s.Listeners {
		policy := l.Policy
		if l.Exclusive {
			policy += ", exclusive"
		}
		if l.Steering != "" {
			policy += ", " + l.Steering
		}
		backlog := fmt.Sprint(l.Backlog)
		for _, r := range l.Refused {
			backlog += fmt.Sprintf(" (%s wanted %d)", r.AskedBy, r.Backlog)
		}
		_, _ = fmt.Fprintf(t, "%s\t%s %s\t%s\t%s\t%s\t%s\t%s\n", cmp.Or(l.Name, "-"), l.Network, clean([]string{l.Address})[0], policy, backlog, known(l.Queued), list(l.Holders), l.AskedBy)
	}
	_, _ = fmt.Fprintln(t, "\nPOOL\tGENERATION\tREADY\tROLL-OUT")
	for _, p := range s.Pools {
		roll := "-"
		if r := p.Rollout; r != nil {
			roll = fmt.Sprintf("%s to generation %d: %s, %d of %d replaced", r.Kind, r.To, r.Phase, r.Replaced, r.Total)
		}
		_, _ = fmt.Fprintf(t, "%s\t%d\t%d of %d\t%s\n", p.Name, p.Generation, p.Ready, p.Desired, roll)
	}
	_, _ = fmt.Fprintln(t, "\nSLOT\tWORKER\tPID\tSTATE\tGENERATION\tCONNECTIONS\tACCEPTED\tRESTARTS\tUP\tMEMORY\tCPU\tLAST EXIT")
	for _, p := range s.Pools {
		for _, k := range p.Workers {
			state := k.State
			if k.RetrySeconds != nil {
				state += " " + seconds(*k.RetrySeconds)
			}
			_, _ = fmt.Fprintf(t, "%s/%d\t%d\t%s\t%s\t%d\t%s\t%s\t%d\t%s\t%s\t%s\t%s\n", p.Name, k.Slot, k.ID, known(k.PID), state, k.Generation,
				known(k.Connections), known(k.Accepted), k.Restarts, maybe(k.UptimeSeconds, seconds), maybe(k.RSSBytes, mebibytes), maybe(k.CPUSeconds, seconds), cmp.Or(k.LastExit, "-"))
		}
	}
	_ = t.Flush()
}

// known shows a number, or that it is not known.
func known[T int | int64 | uint64](p *T) string {
	if p == nil {
		return "-"
	}
	return fmt.Sprint(*p)
}

func maybe[T any](p *T, show func(T) string) string {
	if p == nil {
		return "-"
	}
	return show(*p)
}

func seconds(s float64) string {
	d := time.Duration(s * float64(time.Second))
	if d < 10*time.Second {
		return d.Round(10 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

func mebibytes(b uint64) string { return fmt.Sprintf("%.1f MiB", float64(b)/(1<<20)) }

func list(ids []uint64) string {
	if len(ids) == 0 {
		return "-"
	}
	return strings.Trim(fmt.Sprint(ids), "[]")
}
