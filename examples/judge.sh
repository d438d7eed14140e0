# What the run.sh of the examples share; bash, to be sourced. In short:
#
#	. "$(dirname "$0")/../judge.sh"     # sets dir, port and here
#	needs node                          # or exit code 77
#	prepare app.js                      # into $dir, with the ports of this run
#	start                               # the daemon
#	judge web                           # the pool: answers, counts, restart, kill
#	stop
#
#	PORT                  first of three ports to serve on (default 8080)
#	DIR                   empty directory for everything that is written (default: a temporary one)
#	SUPERVISORD, LOADGEN  these programs, where they are built already
#	NEW, KEPT             other loads than those below, as of loadgen --group, to see more
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
port=${PORT:-8080}
dir=${DIR:-$(mktemp -d)}
dir=$(cd "$dir" && pwd -P)
url=http://127.0.0.1:$port
export SUPERVISORD_SOCKET=$dir/control.sock
sd=${SUPERVISORD:-$dir/supervisord}
daemon= loads=()

# What judge takes for granted; a run.sh sets what is otherwise with its program.
curl=(curl -sS --fail --max-time 60)
slow_path=/slow?ms= slow_unit= # for milliseconds
exits="exited with code 0" # what a worker that drained leaves in status
kept=lossless              # or lossy: the program itself cuts off kept connections when it is told to end

fail() {
	echo "FAILED: $*" >&2
	[ ! -f "$dir/log" ] || sed 's/^/  log: /' "$dir/log" >&2
	exit 1
}
cleanup() {
	[ ${#loads[@]} -eq 0 ] || kill "${loads[@]}" 2>/dev/null || true
	[ -z "$daemon" ] || kill -QUIT "$daemon" 2>/dev/null || true
	wait
	[ -n "${DIR:-}" ] || rm -rf "$dir"
}
trap cleanup EXIT

needs() {
	local tool
	for tool; do
		command -v "$tool" >/dev/null || { echo "needs $tool" >&2; exit 77; }
	done
}
# built PACKAGE FILE builds a program of this repository.
built() { (cd "$here/../.." && go build -o "$2" "./$1"); }
# prepare FILE... copies files of the example, and its configuration, for this run.
prepare() {
	local file
	needs curl
	[ -n "${SUPERVISORD:-}" ] || { needs go; built cmd/supervisord "$sd"; }
	for file in supervisord.toml "$@"; do
		sed "s/8080/$port/g; s/8081/$((port + 1))/g; s/8082/$((port + 2))/g" "$here/$file" >"$dir/$file"
	done
}

sd() { "$sd" "$@"; }
# until_true COMMAND... tries for a minute.
until_true() {
	local end=$((SECONDS + 60))
	until "$@"; do
		[ $SECONDS -lt $end ] || return 1
		sleep 0.1
	done
}
get() { "${curl[@]}" -D - -o /dev/null "$url$1"; } # the head of the answer
get_pid() { get "$1" | sed -n 's/^X-Worker: *\([0-9]*\).*/\1/Ip'; }

# Of the pool that is judged: rows of status, pids, and what the JSON says.
rows() { sd status 2>/dev/null | grep "^$pool/"; }
pids() { rows | awk '{ print $3 }'; }
both_ready() { [ "$(rows | awk '$4 == "ready"' | wc -l)" -eq 2 ] && [ "$(rows | wc -l)" -eq 2 ]; }
# open: how many connections its workers have open, by status --json; "unknown" when that is not known.
open() {
	sd status --json | grep -oE '"(name|connections)": *("[^"]*"|[0-9]+|null)' | awk -F': *' -v pool="\"$pool\"" '
		$1 ~ /name/ { on = $2 == pool; next }
		on && $2 == "null" { unknown = 1 }
		on { sum += $2 }
		END { print unknown ? "unknown" : sum + 0 }'
}
open_is() { [ "$(open)" = "$1" ]; }
open_at_least() { local n; n=$(open); [ "$n" != unknown ] && [ "$n" -ge "$1" ]; }
exited_well() { [ "$(rows | grep -c "$exits")" -eq "$1" ]; }
# processes: those that run in $dir, as all workers and their children do.
processes() { local p; for p in /proc/[0-9]*; do [ ! "$p/cwd" -ef "$dir" ] || echo "${p#/proc/}"; done; }
# workers: which workers the processes on standard input belong to.
workers() {
	local pid of all
	all=" $(pids | tr '\n' ' ')"
	while read -r pid; do
		of=$pid
		while [ "${of:-0}" -gt 1 ]; do
			[[ $all != *" $of "* ]] || { echo "$of"; break; }
			of=$(sed -n 's/^PPid:\t//p' "/proc/$of/status" 2>/dev/null) || true
		done
	done
}

start() {
	echo "== start"
	sd check -c "$dir/supervisord.toml"
	"$sd" run -c "$dir/supervisord.toml" >"$dir/log" 2>&1 &
	daemon=$!
}

# judge POOL [PORT]
judge() {
	pool=$1 port=${2:-$port}
	url=${url%:*}:$port
	[ -n "${LOADGEN:-}" ] || { needs go; LOADGEN=$dir/loadgen; built bench/loadgen "$LOADGEN"; }
	echo "== pool $pool: both workers answer"
	until_true both_ready || fail "two workers are not ready"
	: >"$dir/answers"
	until_true both_answer || fail "not both workers answer"
	rows
	counts
	restart
	kill_one
}

# both_answer asks several times at once, so that one alone does not take all.
both_answer() {
	local i
	for i in 1 2 3 4 5 6; do get_pid / >>"$dir/answers" & done
	wait $(jobs -p | grep -vx "$daemon")
	[ "$(sort -u "$dir/answers" | workers | sort -u | wc -l)" -eq 2 ]
}

counts() {
	echo "== connections are counted while they are open"
	local held=() fd
	until_true open_is 0 || fail "somebody has a connection open: $(open)"
	for _ in 1 2 3 4 5; do
		exec {fd}<>"/dev/tcp/127.0.0.1/$port"
		held+=("$fd")
	done
	until_true open_is 5 || fail "5 connections are open, and status says $(open)"
	[ "$(sd connections "$pool" --json | grep -oE '"total": *[0-9]+' | grep -oE '[0-9]+')" -eq 5 ] || fail "connections says otherwise"
	rows
	for fd in "${held[@]}"; do exec {fd}>&-; done
	until_true open_is 0 || fail "connections were closed, and status says $(open)"
}

# slowly MS begins a request that takes so long: its process is in $slow, the head of its answer in $dir/slow.
slowly() {
	until_true open_is 0 || fail "somebody has a connection open: $(open)"
	get "$slow_path$1$slow_unit" >"$dir/slow" &
	slow=$!
	until_true open_at_least 1 || fail "the slow request did not begin"
}

# load NAME KEY=VALUE... puts requests on the pool until unload NAME, which says how many failed.
load() {
	"$LOADGEN" --ignore-drops --late 60s --timeout 60s --duration 5m --group "name=$1,$2" "127.0.0.1:$port" >"$dir/$1" 2>&1 &
	loads+=($!)
	until_true running $! || fail "the load did not begin"
}
running() { ls -l "/proc/$1/fd" 2>/dev/null | grep -q eventpoll; }
# unload ends all of them.
unload() {
	kill "${loads[@]}"
	wait "${loads[@]}" || true
	loads=()
}
report() { grep -h -e '^new' -e '^kept' -e '^workers' "$dir/new" "$dir/kept"; }
lossless() { awk -v name="$1" '$1 == name { ok = $4 > 0 && $4 == $5 && $6 == 0 } END { exit !ok }' "$dir/$1"; }

restart() {
	echo "== restart under a stream of new connections, with a slow request under way"
	local old
	old=" $(processes | tr '\n' ' ')"
	slowly 5000
	load new "${NEW:-clients=4,every=20ms}"
	load kept "${KEPT:-clients=4,every=20ms},keepalive"
	sd restart "$pool" || fail "restart"
	unload
	report
	lossless new || fail "new connections were lost: $(cat "$dir/new")"
	lossless kept || [ "$kept" = lossy ] || fail "kept connections were lost: $(cat "$dir/kept")"
	lossless kept || cat "$dir/kept"
	wait "$slow" || fail "the slow request was cut off"
	[[ $old == *" $(sed -n 's/^X-Worker: *\([0-9]*\).*/\1/Ip' "$dir/slow") "* ]] || fail "the slow request was not answered by a worker of before"
	until_true both_ready || fail "not two workers are left"
	exited_well 2 || fail "a worker that drained did not end with \"$exits\""
}

kill_one() {
	echo "== kill a worker: another one takes its slot"
	kill -KILL "$(pids | head -n 1)"
	get / >/dev/null || fail "no answer after the kill"
	until_true replaced || fail "the killed worker was not replaced"
	get / >/dev/null || fail "no answer of the successor"
	rows
}
replaced() { rows | grep -q 'killed by SIGKILL' && both_ready; }

stop() {
	echo "== stop, with a slow request under way"
	local code=0
	slowly 2000
	sd stop
	wait "$slow" || fail "the slow request was cut off"
	wait "$daemon" || code=$?
	daemon=
	[ $code -eq 0 ] || fail "the daemon exited with $code"
	[ -z "$(processes)" ] || fail "still running: $(processes)"
	[ ! -e "$SUPERVISORD_SOCKET" ] || fail "the control socket is left"
	! get / 2>/dev/null || fail "somebody still answers"
	echo "== ok"
}
