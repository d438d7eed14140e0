//go:build race

package testkit

// Race says whether the test, and so what [Program] builds, has the race detector.
const Race = true
