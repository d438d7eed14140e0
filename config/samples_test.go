package config

import "pgregory.net/rapid"

// samples holds, for every key of the schema, values that are valid and are not
// the default. The first one is what tests of single keys use.
var samples = map[string][]string{
	"supervisor.log_level":  {`"trace"`, `"error"`},
	"supervisor.log_format": {`"json"`},
	"control.socket":        {`"run/control.sock"`, `"/run/x/y.sock"`},
	"control.mode":          {`"0660"`, `"777"`},
	"control.group":         {`"0"`},

	"listener.network":        {`"tcp4"`},
	"listener.address":        {`"127.0.0.1:99"`},
	"listener.from":           {`"systemd:http"`},
	"listener.policy":         nil,
	"listener.exclusive":      {`true`},
	"listener.linger":         {`"0s"`, `"1h0m1s"`, `"1.5ms"`},
	"listener.backlog":        {`1`, `2147483647`},
	"listener.ipv6_only":      {`true`},
	"listener.no_delay":       {`true`, `false`},
	"listener.keep_alive":     {`false`, `true`},
	"listener.defer_accept":   {`"10s"`},
	"listener.fast_open":      {`128`},
	"listener.free_bind":      {`true`},
	"listener.receive_buffer": {`"64KiB"`, `"1B"`, `"100kB"`},
	"listener.send_buffer":    {`"4096 B"`},
	"listener.mode":           {`"0660"`, `"000"`},
	"listener.owner":          {`"0"`},
	"listener.group":          {`"0"`, `"12345"`},
	"listener.readable_all":   {`true`},
	"listener.writable_all":   {`true`},

	"pool.command":              {`["./other", "{slot}", "{\"json\": true}"]`, `['C:\x', "a\nb\u0001\u007f", "ü"]`},
	"pool.workers":              {`7`, `0`, `"auto"`},
	"pool.protocol":             nil, // none needs more than this key
	"pool.listeners":            {`["other"]`},
	"pool.bind_allow":           {`["127.0.0.1:9000-9099", "udp:*:53", "/run/app/", "@x*"]`, `[]`},
	"pool.user":                 {`"0"`},
	"pool.group":                {`"0"`, `"4242"`},
	"pool.supplementary_groups": {`["4242", "7"]`},
	"pool.working_directory":    {`"sub/{slot}"`, `"/"`},
	"pool.umask":                {`"0077"`},
	"pool.env":                  {`{ A = "b", "x.y" = "\"{worker}\"" }`},
	"pool.env_file":             {`"vars.env"`, `"-missing.env"`},
	"pool.inherit_env":          {`["*"]`, `["HTTP_*", "X"]`},
	"pool.ready":                {`"listening"`, `"delay:59s"`, `"delay:0s"`},
	"pool.start_timeout":        {`"2h"`, `"90m"`},
	"pool.min_uptime":           {`"1s"`},
	"pool.linger":               {`"1s"`},
	"pool.heartbeat_timeout":    {`"10s"`},
	"pool.non_blocking":         {`true`},
	"pool.graceful_timeout":     {`"0s"`},
	"pool.kill_timeout":         {`"1us"`},
	"pool.drain_delay":          {`"5s"`},
	"pool.stop_signal":          {`"SIGQUIT"`, `"int"`},
	"pool.restart":              {`"never"`, `"on-failure"`},
	"pool.restart_delay":        {`"1s"`},
	"pool.restart_max_delay":    {`"24h"`},
	"pool.max_restarts":         {`1`},
	"pool.restart_window":       {`"5m"`},
	"pool.on_limit":             {`"stop"`, `"exit"`},
	"pool.output":               {`"inherit"`, `"file:log/{slot}.log"`},

	"pool.rollout.max_surge":          {`2`, `10000`},
	"pool.rollout.max_unavailable":    {`1`},
	"pool.rollout.monitor":            {`"0s"`},
	"pool.rollout.on_failure":         {`"halt"`},
	"pool.rollout.order":              {`"oldest"`},
	"pool.rollout.max_generations":    {`2`},
	"pool.rollout.generation_timeout": {`"1s"`},

	"pool.max_connections": {`1000`},

	"pool.limits.nofile":        {`65536`, `"unlimited"`},
	"pool.limits.nproc":         {`0`, `"unlimited"`},
	"pool.limits.core":          {`"unlimited"`, `"0B"`, `"1MB"`},
	"pool.limits.memlock":       {`"64KiB"`},
	"pool.limits.stack":         {`"8MiB"`},
	"pool.limits.as":            {`"2TiB"`},
	"pool.limits.slice":         {`"200us"`, `"3ms"`},
	"pool.limits.nice":          {`-20`, `0`},
	"pool.limits.scheduling":    {`"idle"`, `"other"`},
	"pool.limits.oom_score_adj": {`100`, `-1000`},
	"pool.limits.cpu_affinity":  {`[3, 0, 3]`},
	"pool.limits.no_new_privs":  {`true`},
	"pool.limits.capabilities":  {`["cap_net_bind_service", "NET_RAW"]`},
}

// sampleFiles are the files that the samples name.
var sampleFiles = map[string]string{"vars.env": "A=1\nB='two words'\n"}

// drawTable draws some keys of a table and a value for each.
func drawTable(t *rapid.T, prefix string, fields []field, skip func(key string) bool) string {
	text := ""
	for _, f := range fields {
		values := samples[prefix+"."+f.key]
		if f.table == nil && len(values) > 0 && !skip(f.key) && rapid.Bool().Draw(t, f.key) {
			text += f.key + " = " + rapid.SampledFrom(values).Draw(t, f.key+" value") + "\n"
		}
	}
	return text
}
