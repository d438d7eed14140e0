#!/usr/bin/env bash
# Builds the daemon, runs the Python server with it, counts its connections, restarts
# it under load, kills a worker, stops it, and exits non-zero on any surprise.
#
#	PORT  port to serve (default 8080)
#	DIR   empty directory for everything that is built and written (default: a temporary one)
#
# Exit code 77: something is missing to run it.
set -euo pipefail
for tool in go curl python3; do
	command -v $tool >/dev/null || { echo "needs $tool" >&2; exit 77; }
done
python3 -c 'import sys; sys.exit(sys.version_info < (3, 9))' || { echo "needs Python 3.9" >&2; exit 77; }
here=$(cd "$(dirname "$0")" && pwd)
port=${PORT:-8080}
dir=${DIR:-}
[ -n "$dir" ] || dir=$(mktemp -d)
dir=$(cd "$dir" && pwd -P)
url=http://127.0.0.1:$port
export SUPERVISORD_SOCKET=$dir/control.sock
daemon= load=

fail() {
	echo "FAILED: $*" >&2
	[ ! -f "$dir/log" ] || sed 's/^/  log: /' "$dir/log" >&2
	exit 1
}
cleanup() {
	[ -z "$load" ] || kill "$load" 2>/dev/null || true
	[ -z "$daemon" ] || kill -QUIT "$daemon" 2>/dev/null || true
	wait
	[ -n "${DIR:-}" ] || rm -rf "$dir"
}
trap cleanup EXIT

sd() { "$dir/supervisord" "$@"; }
# until_true COMMAND... tries for 20 seconds.
until_true() {
	local end=$((SECONDS + 20))
	until "$@"; do
		[ $SECONDS -lt $end ] || return 1
		sleep 0.05
	done
}
get() { curl -sS --fail --max-time 20 "$url$1"; }
# of EXPRESSION: its value for the JSON d on standard input, or for the workers w of a status.
of() {
	python3 -c 'import json, sys
d = json.load(sys.stdin)
w = d["pools"][0]["workers"] if "pools" in d else None
print(eval(sys.argv[1]))' "$1"
}
status() { sd status --json | of "$1"; }
is() { [ "$(status "$1" 2>/dev/null)" = "$2" ]; }
both_ready() { is 'd["pools"][0]["ready"], len(w)' '(2, 2)'; }
open_is() { is 'sum(x["connections"] for x in w)' "$1"; }
accepted() { status 'sum(x["accepted"] for x in w)'; }
accepted_is() { [ "$(accepted)" -ge "$1" ]; } # or more: what was counted late
# slowly MS begins a request that takes so long: its process is in $slow, its answer in $dir/slow.
slowly() {
	local before
	before=$(accepted)
	get "/slow?ms=$1" >"$dir/slow" &
	slow=$!
	until_true accepted_is $((before + 1)) || fail "the slow request did not begin"
}
# processes: those that run in $dir, as all workers do.
processes() { for p in /proc/[0-9]*; do [ "$(readlink "$p/cwd")" != "$dir" ] || basename "$p"; done; }
both_answer() {
	get / >>"$dir/answers"
	[ "$(cut -d' ' -f2 "$dir/answers" | sort -u | wc -l)" -eq 2 ]
}

echo "== build and start"
(cd "$here" && go build -o "$dir/supervisord" ../../cmd/supervisord)
cp "$here/app.py" "$here/supervisord_worker.py" "$dir"
sed "s/8080/$port/g" "$here/supervisord.toml" >"$dir/supervisord.toml"
sd check -c "$dir/supervisord.toml"
"$dir/supervisord" run -c "$dir/supervisord.toml" >"$dir/log" 2>&1 &
daemon=$!
until_true both_ready || fail "two workers are not ready"
until_true both_answer || fail "not both workers answer"
sort -u "$dir/answers"
sd status

echo "== connections are counted while they are open"
until_true open_is 0 || fail "somebody has a connection open"
before=$(accepted)
held=()
for _ in 1 2 3 4 5; do
	exec {fd}<>"/dev/tcp/127.0.0.1/$port"
	held+=("$fd")
done
until_true open_is 5 || fail "5 connections are open, and status says $(status '[x["connections"] for x in w]')"
until_true accepted_is $((before + 5)) || fail "not 5 more were accepted"
sd connections || fail "connections"
[ "$(sd connections --json | of 'd["total"]')" -eq 5 ] || fail "5 connections are open, and connections says otherwise"
for fd in "${held[@]}"; do exec {fd}>&-; done
until_true open_is 0 || fail "connections were closed, and status does not say so"

echo "== restart under a stream of new connections, with a slow request under way"
cat >"$dir/load.py" <<'END'
import http.client, os, sys, threading
answers, failures = [], []
def client():
    while not os.path.exists("enough"):
        try:
            conn = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=20)
            conn.request("GET", "/")
            answers.append(conn.getresponse().read().split()[1])
            open("begun", "a").close()
        except Exception as err:
            failures.append(repr(err))
clients = [threading.Thread(target=client) for _ in range(4)]
for c in clients: c.start()
for c in clients: c.join()
print(f"{len(answers)} answers of {len(set(answers))} workers, {len(failures)} failures", *failures[:5])
sys.exit(bool(failures) or len(set(answers)) < 2)
END
slowly 4000
old=$(status '" ".join(str(x["pid"]) for x in w)')
(cd "$dir" && exec python3 load.py "$port" >load.out) &
load=$!
until_true test -e "$dir/begun" || fail "the load did not begin"
sd restart || fail "restart"
touch "$dir/enough"
code=0
wait "$load" || code=$?
load=
cat "$dir/load.out"
[ $code -eq 0 ] || fail "connections were lost, or only one worker answered"
wait "$slow" || fail "the slow request was cut off"
[[ " $old " == *" $(cut -d' ' -f2 "$dir/slow") "* ]] || fail "the slow request was not answered by a worker of before"
until_true both_ready || fail "not two workers are left"
is 'all(x["last_exit"] == "exited with code 0" for x in w)' True || fail "a worker that drained did not exit with 0"

echo "== kill a worker: another one takes its slot"
kill -KILL "$(get / | cut -d' ' -f2)"
get / >/dev/null || fail "no answer after the kill"
until_true is '[x["last_exit"] for x in w].count("killed by SIGKILL")' 1 || fail "the killed worker was not replaced"
until_true both_ready || fail "the successor is not ready"
sd status

echo "== stop, with a slow request under way"
slowly 3000
sd stop
wait "$slow" || fail "the slow request was cut off"
code=0
wait "$daemon" || code=$?
daemon=
[ $code -eq 0 ] || fail "the daemon exited with $code"
[ -z "$(processes)" ] || fail "still running: $(processes)"
[ ! -e "$SUPERVISORD_SOCKET" ] || fail "the control socket is left"
! get / 2>/dev/null || fail "somebody still answers"

echo "== without supervisord the program says why it does not run"
code=0
(cd "$dir" && exec python3 -B app.py "127.0.0.1:$port") 2>"$dir/alone" || code=$?
[ $code -ne 0 ] || fail "it ran"
grep SUPERVISORD_FD "$dir/alone" | tail -n 1 | grep Error || fail "it says: $(cat "$dir/alone")"
echo "== ok"
