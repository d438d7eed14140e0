// Package config reads the configuration of supervisord: one TOML file and the
// files it includes, flags, or the embedded default. All three go through the
// same schema and the same checks.
//
// The schema is the Go structs of this package. The tags of a field say the key,
// its default, its range, what a change needs (a reload, or new workers) and one
// sentence for the reference; decoding, [Config.Effective], [Pool.Fingerprint]
// and docs/configuration.md all read them, so they cannot disagree.
//
//	text --toml--> map[string]any --schema--> structs --resolve--> Config
//	  |                               |                   |
//	  +--- positions of all keys -----+---- Errors <------+
//
// A configuration is accepted whole or not at all, and everything that is wrong
// with it is reported at once, with the file and line: an operator fixes it in
// one go. What depends on the machine is resolved here too (users, host names,
// the number of processors, environment files), so that a [Config] says exactly
// what will run.
//
// The package does not know whether a command exists, an address is free or a
// limit is permitted: that is known when it is tried. It opens files only to read
// them and keeps none open. Nothing here may be called from more than one
// goroutine on the same Config while one of them writes to it; the package itself
// keeps no state.
//
// # Example
//
//	path, err := config.Find(flag)
//	...
//	c, err := config.Load(path)
//	var bad config.Errors
//	if errors.As(err, &bad) {
//		fmt.Fprintln(os.Stderr, bad)   // web.toml:7: pool.web.worker: unknown key (did you mean "workers"?)
//		os.Exit(3)
//	}
package config

//go:generate go test . -run "TestReferenceIsCurrent|TestErrors" -update
