package master

import (
	"io"

	"github.com/hashicorp/go-hclog"
)

// newLogger makes the daemon's logger. Without times the lines are for a journal
// that adds its own.
func newLogger(opts Options, w io.Writer) hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{
		Level: hclog.LevelFromString(opts.Config.Supervisor.LogLevel), Output: w, JSONFormat: opts.Config.Supervisor.LogFormat == "json",
		TimeFormat: "2006-01-02T15:04:05.000Z07:00", DisableTime: !opts.Times, IndependentLevels: true,
	})
}
