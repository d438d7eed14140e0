//go:build !linux

package main

import "time"

// burn keeps one CPU busy.
func burn(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); {
	}
}
