package config

import (
	"cmp"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"
)

// stopSignals are the signals a worker may be asked to stop with. SIGKILL is what
// comes after kill_timeout, and nothing a worker could answer gracefully.
var stopSignals = map[string]syscall.Signal{
	"SIGTERM": syscall.SIGTERM, "SIGINT": syscall.SIGINT, "SIGQUIT": syscall.SIGQUIT, "SIGHUP": syscall.SIGHUP,
	"SIGUSR1": syscall.SIGUSR1, "SIGUSR2": syscall.SIGUSR2, "SIGWINCH": syscall.SIGWINCH, "SIGABRT": syscall.SIGABRT,
}

// pool decodes one pool and resolves what depends on the machine.
func (l *loader) pool(t *table) Pool {
	p := Pool{Name: t.path[1]}
	t.decode(sectionOf("pool").keys, &p)
	if len(p.Command) > 0 && p.Command[0] == "" {
		t.errorAt("command", element(0), "the name of the program is empty")
	}
	p.WorkingDirectory = l.abs(p.WorkingDirectory) // of "" it is the directory of the file
	l.identity(t, &p)
	l.envFile(t, &p)
	l.output(t, &p)
	t.ready(&p)
	t.stopSignal(&p)
	if p.Protocol == "native" {
		p.Limits.Scheduling = cmp.Or(p.Limits.Scheduling, "batch")
		p.Limits.Slice = cmp.Or(p.Limits.Slice, 100*time.Microsecond)
	}
	t.capabilities(&p)
	t.names("inherit_env", p.InheritEnv, func(s string) string {
		if s == "" || strings.ContainsAny(s, "=") || strings.Contains(strings.TrimSuffix(s, "*"), "*") {
			return `is no name of an environment variable (a "*" is possible at the end)`
		}
		return ""
	})
	t.combinations(&p)
	return p
}

// names checks the elements of a list: each by problem, and that none stands twice.
func (t *table) names(key string, list []string, problem func(string) string) {
	if t.bad[key] {
		return // elements that were refused are missing: the indices do not fit
	}
	for i, s := range list {
		if slices.Index(list, s) < i {
			t.errorAt(key, element(i), "%q is stated twice", s)
		} else if text := problem(s); text != "" {
			t.errorAt(key, element(i), "%q %s", s, text)
		}
	}
}

// ready fills in the default, where there is one.
func (t *table) ready(p *Pool) {
	switch {
	case t.bad["ready"] || t.bad["protocol"]:
	case p.Protocol == "none" && p.Ready == "":
		t.errorf("ready", `is missing: a process with protocol "none" cannot say when it is ready (state a time: ready = "delay:2s")`)
	case p.Protocol == "none" && p.Ready != "delay":
		t.errorf("ready", `%q is not possible with protocol "none" (allowed: "delay:2s")`, p.Ready)
	case p.Ready != "":
	case p.Protocol == "node", p.Protocol == "systemd" && len(p.Listeners) > 0:
		p.Ready = "listening"
	default:
		p.Ready = "notify"
	}
}

func (t *table) stopSignal(p *Pool) {
	name := strings.ToUpper(p.StopSignal)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	number, ok := stopSignals[name]
	if !ok && t.good("stop_signal") {
		t.errorf("stop_signal", `unknown value %q (allowed: "SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGWINCH", "SIGABRT")`, p.StopSignal)
	}
	p.StopSignal, p.StopSignalNumber = name, int(number)
}

// output makes the path of "file:PATH" absolute.
func (l *loader) output(t *table, p *Pool) {
	path, isFile := strings.CutPrefix(p.Output, "file:")
	switch {
	case isFile && (path == "" || strings.HasSuffix(path, "/")):
		t.errorf("output", "%q names no file", p.Output)
	case isFile:
		p.Output = "file:" + l.abs(path)
	case p.Output == "journal":
		t.errorf("output", `"journal" is not available in this version (allowed: "capture", "file:PATH", "inherit")`)
	case p.Output != "capture" && p.Output != "inherit":
		t.errorf("output", `unknown value %q (allowed: "capture", "file:PATH", "inherit")`, p.Output)
	}
}

// envFile reads the environment file. With a "-" before its name it may be missing.
func (l *loader) envFile(t *table, p *Pool) {
	name, optional := strings.CutPrefix(p.EnvFile, "-")
	if p.EnvFile == "" {
		return
	}
	if name == "" {
		t.errorf("env_file", "names no file")
		return
	}
	path := l.abs(name)
	p.EnvFile = path
	if optional {
		p.EnvFile = "-" + path
	}
	data, err := readFile(path)
	switch {
	case err != nil && optional && os.IsNotExist(err):
	case err != nil && os.IsNotExist(err):
		t.errorf("env_file", "there is no file %q (with a - before its name it may be missing)", path)
	case err != nil:
		t.errorf("env_file", "cannot read it: %v", err)
	default:
		p.EnvFileVars = parseEnvFile(string(data), func(line int, name, problem string) {
			l.errs = append(l.errs, Error{path, line, name, problem})
		})
	}
}

// combinations reports keys of one pool that exclude each other.
func (t *table) combinations(p *Pool) {
	if p.RestartDelay > p.RestartMaxDelay && t.good("restart_delay") && t.good("restart_max_delay") {
		t.errorf("restart_delay", "%s is longer than restart_max_delay, %s", formatDuration(p.RestartDelay), formatDuration(p.RestartMaxDelay))
	}
	r := t.sub["rollout"]
	if p.Rollout.MaxSurge == 0 && p.Rollout.MaxUnavailable == 0 && r.good("max_surge") && r.good("max_unavailable") {
		key := "max_surge"
		if !r.has(key) {
			key = "max_unavailable"
		}
		r.errorf(key, "max_surge and max_unavailable are both 0: no worker could ever be replaced (one of them at least 1)")
	}
	if t.bad["protocol"] {
		return
	}
	t.protocol(p)
	if p.Ready == "delay" && t.good("ready") && p.ReadyDelay >= p.StartTimeout && t.good("start_timeout") {
		t.errorf("ready", "the delay, %s, is not shorter than start_timeout, %s", formatDuration(p.ReadyDelay), formatDuration(p.StartTimeout))
	}
}

// protocol reports keys that mean nothing for how a pool's workers are spoken to.
func (t *table) protocol(p *Pool) {
	if p.Protocol == "none" && len(p.Listeners) > 0 {
		t.errorf("listeners", `a process with protocol "none" cannot be given listeners (use protocol = "systemd", or "native")`)
	}
	if p.Protocol != "native" && p.MaxConnections > 0 && t.good("max_connections") {
		t.errorf("max_connections", `the master cannot hold a worker with protocol %q to it (limit them in the program, or use protocol = "native")`, p.Protocol)
	}
	if (p.Protocol == "none" || p.Protocol == "systemd") && len(p.BindAllow) > 0 {
		t.errorf("bind_allow", `a process with protocol %q cannot ask for sockets (use protocol = "native" or "node")`, p.Protocol)
	}
	if (p.Protocol == "none" || p.Protocol == "node") && p.Heartbeat > 0 && t.good("heartbeat_timeout") {
		t.errorf("heartbeat_timeout", `a process with protocol %q cannot show life (protocol = "native" or "systemd" can)`, p.Protocol)
	}
	if p.Protocol == "systemd" && p.Ready == "listening" && len(p.Listeners) == 0 && t.good("ready") {
		t.errorf("ready", `"listening" needs listeners that the worker could accept on (or ready = "notify")`)
	}
}

// capabilityNames lists the capabilities of capabilities(7) by their numbers.
var capabilityNames = strings.Fields(`
	CAP_CHOWN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_FSETID CAP_KILL CAP_SETGID CAP_SETUID
	CAP_SETPCAP CAP_LINUX_IMMUTABLE CAP_NET_BIND_SERVICE CAP_NET_BROADCAST CAP_NET_ADMIN CAP_NET_RAW
	CAP_IPC_LOCK CAP_IPC_OWNER CAP_SYS_MODULE CAP_SYS_RAWIO CAP_SYS_CHROOT CAP_SYS_PTRACE CAP_SYS_PACCT
	CAP_SYS_ADMIN CAP_SYS_BOOT CAP_SYS_NICE CAP_SYS_RESOURCE CAP_SYS_TIME CAP_SYS_TTY_CONFIG CAP_MKNOD
	CAP_LEASE CAP_AUDIT_WRITE CAP_AUDIT_CONTROL CAP_SETFCAP CAP_MAC_OVERRIDE CAP_MAC_ADMIN CAP_SYSLOG
	CAP_WAKE_ALARM CAP_BLOCK_SUSPEND CAP_AUDIT_READ CAP_PERFMON CAP_BPF CAP_CHECKPOINT_RESTORE`)

// capabilities checks the names and gives them the form CAP_NAME.
func (t *table) capabilities(p *Pool) {
	limits := t.sub["limits"]
	full := make([]string, len(p.Limits.Capabilities))
	for i, name := range p.Limits.Capabilities {
		full[i] = strings.ToUpper(name)
		if !strings.HasPrefix(full[i], "CAP_") {
			full[i] = "CAP_" + full[i]
		}
	}
	limits.names("capabilities", full, func(s string) string {
		if slices.Contains(capabilityNames, s) {
			return ""
		}
		if near := nearest(s, capabilityNames); near != "" {
			return "is no capability (did you mean \"" + near + "\"?)"
		}
		return "is no capability (see capabilities(7))"
	})
	if len(full) > 0 {
		p.Limits.Capabilities = full
	}
}
