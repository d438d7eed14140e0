package config

import (
	"math"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/f72e338e/supervisord/internal/proto"
)

func TestEnvFile(t *testing.T) {
	text := "\ufeff# comment\n; comment\n\n" + `A=1
  B =  two words   # not a comment
C="double \"q\" \$x \n` + "\r\n" + `second line" tail
D='single \ "q"'
E=
F=a\ b\
c
G = "x"'y'  z
H=a=b
I=trailing\ ` + "\n"
	got := parseEnvFile(text, func(line int, name, problem string) { t.Errorf("%d: %s: %s", line, name, problem) })
	want := []string{"A=1", "B=two words   # not a comment", "C=double \"q\" $x \\n\nsecond line tail", `D=single \ "q"`, "E=",
		"F=a bc", "G=xy  z", "H=a=b", "I=trailing "}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for text, want := range map[string]string{
		"A=1\nx":                "2: : is not KEY=VALUE",
		"A=1\n\nB='x\ny\n":      "3: B: the quote is not closed",
		"=1":                    "1: : is no name of an environment variable",
		"A B=1":                 "1: A B: is no name of an environment variable",
		"SUPERVISORD_SLOT=1":    "1: SUPERVISORD_SLOT: is set by the master and cannot be chosen",
		"A='x\ny'\nB":           "3: : is not KEY=VALUE",
		"A=\x00":                "1: A: must not hold a NUL byte",
		"A=ends in backslash\\": "",
	} {
		got := ""
		parseEnvFile(text, func(line int, name, problem string) { got = Error{"", line, name, problem}.shortForm() })
		if got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

func (e Error) shortForm() string {
	return strings.Join([]string{element(e.Line)[1:], e.Key, e.Problem}, ": ")
}

func FuzzEnvFile(f *testing.F) {
	f.Add("A=1\nB='x'\nC=\"\\\"\"\\\n")
	f.Fuzz(func(t *testing.T, text string) {
		for _, v := range parseEnvFile(text, func(line int, _, _ string) {
			if line < 1 || line > 1+strings.Count(text, "\n") {
				t.Fatalf("line %d in %q", line, text)
			}
		}) {
			if name, _, ok := strings.Cut(v, "="); !ok || name == "" || strings.ContainsRune(v, 0) {
				t.Fatalf("%q holds %q", text, v)
			}
		}
	})
}

func TestQuota(t *testing.T) {
	file := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }
	for name, tt := range map[string]struct {
		root fstest.MapFS
		want int
	}{
		"nothing":      {fstest.MapFS{}, math.MaxInt},
		"unlimited":    {fstest.MapFS{"proc/self/cgroup": file("0::/a\n"), "sys/fs/cgroup/a/cpu.max": file("max 100000\n")}, math.MaxInt},
		"whole":        {fstest.MapFS{"proc/self/cgroup": file("0::/a\n"), "sys/fs/cgroup/a/cpu.max": file("200000 100000\n")}, 2},
		"rounded up":   {fstest.MapFS{"proc/self/cgroup": file("0::/a\n"), "sys/fs/cgroup/a/cpu.max": file("150000 100000\n")}, 2},
		"a tenth":      {fstest.MapFS{"proc/self/cgroup": file("0::/\n"), "sys/fs/cgroup/cpu.max": file("10000 100000\n")}, 1},
		"parent":       {fstest.MapFS{"proc/self/cgroup": file("0::/a/b/c\n"), "sys/fs/cgroup/a/cpu.max": file("300000 100000"), "sys/fs/cgroup/a/b/c/cpu.max": file("max 100000")}, 3},
		"container":    {fstest.MapFS{"proc/self/cgroup": file("0::/../../x\n"), "sys/fs/cgroup/cpu.max": file("400000 100000")}, 4},
		"version 1":    {fstest.MapFS{"proc/self/cgroup": file("4:cpu,cpuacct:/a\n"), "sys/fs/cgroup/cpu/a/cpu.cfs_quota_us": file("250000"), "sys/fs/cgroup/cpu/a/cpu.cfs_period_us": file("100000")}, 3},
		"v1 unlimited": {fstest.MapFS{"proc/self/cgroup": file("4:cpu:/a\n"), "sys/fs/cgroup/cpu/a/cpu.cfs_quota_us": file("-1"), "sys/fs/cgroup/cpu/a/cpu.cfs_period_us": file("100000")}, math.MaxInt},
		"nonsense":     {fstest.MapFS{"proc/self/cgroup": file("x\n0::\n"), "sys/fs/cgroup/cpu.max": file("99999999999999999999 0")}, math.MaxInt},
	} {
		if got := quota(tt.root); got != tt.want {
			t.Errorf("%s: %d, want %d", name, got, tt.want)
		}
	}
	if n := processors(); n < 1 {
		t.Errorf("processors() = %d", n)
	}
}

func TestAddresses(t *testing.T) {
	noNetwork(t)
	dir := "/srv/app"
	for text, want := range map[string]proto.SocketSpec{
		`address = "0.0.0.0:8080"`:                       {Network: "tcp", Address: "0.0.0.0", Port: 8080, Backlog: 511},
		`address = ":8080"`:                              {Network: "tcp", Port: 8080, Backlog: 511},
		`address = "*:8080"`:                             {Network: "tcp", Port: 8080, Backlog: 511},
		`address = "[0::1]:80"`:                          {Network: "tcp", Address: "::1", Port: 80, Backlog: 511},
		`address = "localhost:80"`:                       {Network: "tcp", Address: "192.0.2.1", Port: 80, Backlog: 511},
		"address = \"localhost:80\"\nnetwork = \"tcp6\"": {Network: "tcp6", Address: "::1", Port: 80, Backlog: 511},
		`address = "udp:127.0.0.1:53"`:                   {Network: "udp", Address: "127.0.0.1", Port: 53},
		`address = "udp:53"`:                             {Network: "tcp", Address: "192.0.2.1", Port: 53, Backlog: 511}, // a host named udp
		`address = "unix:/run//a.sock"`:                  {Network: "unix", Address: "/run/a.sock", Backlog: 511},
		`address = "unix:a.sock"`:                        {Network: "unix", Address: "/srv/app/a.sock", Backlog: 511},
		"address = \"@a\"\nnetwork = \"unixpacket\"":     {Network: "unixpacket", Address: "@a", Backlog: 511},
		"address = \"unix:@a\"\nnetwork = \"unix\"":      {Network: "unix", Address: "@a", Backlog: 511},
		`from = "systemd:web"`:                           {Network: "tcp", Inherit: "web"},
	} {
		c := mustParse(t, "[listener.a]\n"+text, dir)
		if diff := cmp.Diff(want, c.Listeners[0].Spec); diff != "" {
			t.Errorf("%s: %s", text, diff)
		}
	}
}

func TestDefault(t *testing.T) {
	self := `/opt/a "b"\c/supervisord`
	c, err := Default(self)
	if err != nil {
		t.Fatal(err)
	}
	p := c.Pools[0]
	if c.File != "" || len(c.Files) != 0 || p.Workers != 2 || !slices.Equal(p.Command, []string{self, "worker"}) || !slices.Equal(p.Listeners, []string{"web"}) {
		t.Errorf("%+v", c)
	}
	if s := c.Listeners[0].Spec; proto.HostPort(s.Address, s.Port) != "127.0.0.1:8124" || c.Listeners[0].Name != "web" {
		t.Errorf("%+v", c.Listeners)
	}
	roundTrip(t, c)
	if _, err := Default("supervisord"); err == nil {
		t.Error("a relative path was accepted")
	}
}

func TestDefaults(t *testing.T) {
	dir := t.TempDir()
	c := mustParse(t, "[pool.web]\ncommand = [\"./web\"]\n", dir)
	want := Pool{
		Name: "web", Command: []string{"./web"}, Workers: 1, Protocol: "native", UID: -1, GID: -1, WorkingDirectory: dir, Umask: 0o027,
		Ready: "notify", StartTimeout: time.Minute, Linger: 30 * time.Second, MinUptime: 5 * time.Second, GracefulTimeout: 30 * time.Second, KillTimeout: 5 * time.Second,
		StopSignal: "SIGTERM", StopSignalNumber: int(syscall.SIGTERM), Restart: "always", RestartDelay: 100 * time.Millisecond,
		RestartMaxDelay: 30 * time.Second, MaxRestarts: 10, RestartWindow: time.Minute, OnLimit: "slow", Output: "capture",
		Limits: Limits{Scheduling: "batch", Slice: 100 * time.Microsecond}, Rollout: Rollout{MaxSurge: 1, Monitor: 5 * time.Second, OnFailure: "rollback", Order: "newest", MaxGenerations: 5, GenerationTimeout: 10 * time.Minute},
	}
	if diff := cmp.Diff(want, c.Pools[0]); diff != "" {
		t.Error(diff)
	}
	if c.File != filepath.Join(mustAbs(t), "test.toml") || c.Control.Mode != 0o600 || c.Supervisor != (Supervisor{"info", "text"}) {
		t.Errorf("%+v", c)
	}
}

func mustAbs(t *testing.T) string {
	dir, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestFromFlags(t *testing.T) {
	c, err := FromFlags([]string{"127.0.0.1:8080", "unix:/run/a.sock"}, "4", "", []string{"./app", "-x"})
	if err != nil {
		t.Fatal(err)
	}
	p := c.Pools[0]
	if p.Name != "main" || p.Workers != 4 || p.Protocol != "native" || !slices.Equal(p.Listeners, []string{"main", "main-2"}) ||
		p.WorkingDirectory != mustAbs(t) || c.File != "" || c.Listeners[1].Spec.Network != "unix" {
		t.Errorf("%+v", c)
	}
	roundTrip(t, c)
	if c, err := FromFlags(nil, "auto", "native", []string{"./app"}); err != nil || !c.Pools[0].WorkersAuto || len(c.Listeners) != 0 {
		t.Errorf("%+v, %v", c, err)
	}
	_, err = FromFlags([]string{"8080", ":80", ":80"}, "many", "none", nil)
	want := `--listen 8080: "8080" has no address (write ":8080" for every address)
command: must not be empty
--workers: must be an integer or "auto", is "many"
pool.main.ready: is missing: a process with protocol "none" cannot say when it is ready (state a time: ready = "delay:2s"); this needs a configuration file
--listen: a process with protocol "none" cannot be given listeners (use protocol = "systemd", or "native")
--listen :80: the same socket as listener "main-2"`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

func TestIdentity(t *testing.T) {
	u, err := user.LookupId("0")
	if err != nil {
		t.Skip("no user 0 here")
	}
	c := mustParse(t, "[pool.a]\ncommand = [\"./a\"]\nuser = \""+u.Username+"\"\nsupplementary_groups = [\"4242\", \"7\", \"4242000\"]\n", "/")
	p := c.Pools[0]
	if p.UID != 0 || p.GID != 0 || !slices.Contains(p.Groups, 4242) || slices.Contains(p.Groups, 0) || !slices.IsSorted(p.Groups) {
		t.Errorf("%d %d %v", p.UID, p.GID, p.Groups)
	}
}
