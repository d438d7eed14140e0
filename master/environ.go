package master

import (
	"fmt"
	"maps"
	"os"
	"os/user"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// defaultEnv are the variables that every worker gets from the master's own.
var defaultEnv = []string{"PATH", "LANG", "LC_*", "TZ", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR"}

// loginEnv are the variables that belong to a user, and not to the machine.
var loginEnv = []string{"HOME", "USER", "LOGNAME", "SHELL"}

// userEnv returns what a login of the user would set, so that a worker does not
// take the master's home for its own; nil when the worker stays the master's user.
func userEnv(uid int) []string {
	if uid < 0 {
		return nil
	}
	u, err := user.LookupId(strconv.Itoa(uid))
	if err != nil {
		return []string{"HOME=/"}
	}
	return []string{"HOME=" + u.HomeDir, "USER=" + u.Username, "LOGNAME=" + u.Username}
}

// environment returns the worker's environment without what names the worker:
// later entries win.
func (r *launch) environment() []string {
	var env []string
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		for _, pattern := range append(defaultEnv, r.pool.InheritEnv...) {
			if prefix, ok := strings.CutSuffix(pattern, "*"); name == pattern || ok && strings.HasPrefix(name, prefix) {
				env = append(env, kv)
				break
			}
		}
	}
	if r.user != nil {
		env = slices.DeleteFunc(env, func(kv string) bool {
			name, _, _ := strings.Cut(kv, "=")
			return slices.Contains(loginEnv, name) && !slices.Contains(r.pool.InheritEnv, name)
		})
		env = append(env, r.user...)
	}
	if r.pool.Protocol == "native" {
		env = append(env, fmt.Sprintf("GOMAXPROCS=%d", r.share()))
	}
	env = append(env, r.pool.EnvFileVars...)
	for _, name := range slices.Sorted(maps.Keys(r.pool.Env)) {
		env = append(env, name+"="+r.pool.Env[name])
	}
	return env
}

// share is how many processors a worker's part are. Go programs take it as the
// number of threads that run at once: with as many as the machine has in each
// worker, they are in each other's way (bench/compare).
func (r *launch) share() int {
	have := runtime.GOMAXPROCS(0) // as the cgroup's quota and our own affinity have it
	if n := len(r.pool.Limits.CPUAffinity); n > 0 {
		have = n
	}
	n := max(1, r.pool.Workers)
	return max(1, (have+n-1)/n)
}

func (r *launch) variable(name string) string {
	value := ""
	for _, kv := range r.environment() {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			value = v
		}
	}
	return value
}
