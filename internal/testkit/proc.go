package testkit

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// FDs returns what the open descriptors of a process lead to, sorted, such as
// "socket:[123]"; nil when the process is gone. proc(5)
func FDs(pid int) []string {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var list []string
	for _, e := range entries {
		if to, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil {
			list = append(list, to)
		}
	}
	slices.Sort(list)
	return list
}

// FDKinds counts descriptors by kind: "socket 4, pipe 2, ...".
func FDKinds(fds []string) string {
	count := map[string]int{}
	for _, fd := range fds {
		kind, _, _ := strings.Cut(fd, ":[")
		count[kind]++
	}
	var parts []string
	for kind, n := range count {
		parts = append(parts, fmt.Sprintf("%s %d", kind, n))
	}
	slices.Sort(parts)
	return strings.Join(parts, ", ")
}

// Children returns the child processes of all threads of a process.
func Children(pid int) []int {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	var list []int
	for _, file := range files {
		text, _ := os.ReadFile(file)
		for _, f := range strings.Fields(string(text)) {
			if n, err := strconv.Atoi(f); err == nil {
				list = append(list, n)
			}
		}
	}
	slices.Sort(list)
	return list
}

// Rest is what a process has used so far; two of them tell whether it was at rest.
type Rest struct {
	Ticks     int64            // of CPU, user and system, each 10 ms
	WakeUps   int64            // voluntary context switches of all threads
	ByThread  map[string]int64 // the same, each thread by its number
	RSS       int64            // bytes now
	PeakRSS   int64            // bytes at most
	Threads   int
	SwitchOut int64 // involuntary context switches
}

// RestOf reads /proc. The zero value means that the process is gone.
func RestOf(pid int) Rest {
	r := Rest{ByThread: map[string]int64{}}
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return Rest{}
	}
	for _, task := range tasks {
		values := statusFile(fmt.Sprintf("/proc/%d/task/%s/status", pid, task.Name()))
		r.ByThread[task.Name()] = values["voluntary_ctxt_switches"]
		r.WakeUps += values["voluntary_ctxt_switches"]
		r.SwitchOut += values["nonvoluntary_ctxt_switches"]
	}
	values := statusFile(fmt.Sprintf("/proc/%d/status", pid))
	r.Threads, r.RSS, r.PeakRSS = len(tasks), values["VmRSS"]<<10, values["VmHWM"]<<10
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	// The name, field 2, may hold spaces and parentheses.
	f := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(f) > 12 {
		user, _ := strconv.ParseInt(f[11], 10, 64)
		system, _ := strconv.ParseInt(f[12], 10, 64)
		r.Ticks = user + system
	}
	return r
}

// statusFile reads the numbers of a status file.
func statusFile(path string) map[string]int64 {
	text, _ := os.ReadFile(path)
	values := map[string]int64{}
	for line := range strings.Lines(string(text)) {
		name, rest, _ := strings.Cut(line, ":")
		if f := strings.Fields(rest); len(f) > 0 {
			if n, err := strconv.ParseInt(f[0], 10, 64); err == nil {
				values[name] = n
			}
		}
	}
	return values
}

// WithVariable returns the processes whose environment has NAME=VALUE.
func WithVariable(variable string) []int {
	files, _ := filepath.Glob("/proc/[0-9]*/environ")
	var list []int
	for _, file := range files {
		text, _ := os.ReadFile(file)
		if slices.ContainsFunc(bytes.Split(text, []byte{0}), func(b []byte) bool { return string(b) == variable }) {
			if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file))); err == nil {
				list = append(list, pid)
			}
		}
	}
	return list
}

// describe names processes for a message.
func describe(pids []int) string {
	var parts []string
	for _, pid := range pids {
		line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		parts = append(parts, fmt.Sprintf("%d (%s)", pid, strings.TrimRight(strings.ReplaceAll(string(line), "\x00", " "), " ")))
	}
	return strings.Join(parts, ", ")
}
