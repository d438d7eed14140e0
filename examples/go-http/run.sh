#!/usr/bin/env bash
# Builds the server and the daemon, deploys a new version and a broken one under
# load, kills a worker, and exits non-zero on any surprise.
#
#	PORT  port to serve (default 8080)
#	DIR   empty directory for everything that is built and written (default: a temporary one)
#
# Exit code 77: something is missing to run it.
set -euo pipefail
for tool in go curl; do
	command -v $tool >/dev/null || { echo "needs $tool" >&2; exit 77; }
done
here=$(cd "$(dirname "$0")" && pwd)
port=${PORT:-8080}
dir=${DIR:-}
[ -n "$dir" ] || dir=$(mktemp -d)
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
get() { curl -sS --fail --max-time 10 "$url$1"; }
pid_in() { sed -n 's/.* pid=\([0-9]*\).*/\1/p'; }
both_ready() { sd status 2>/dev/null | grep -q '^web .* 2 of 2 '; }
replaced() { sd status 2>/dev/null | grep -q 'killed by SIGKILL' && both_ready; }
# deploy FILE: it takes the old one's place at once (rename), as a deployment should.
deploy() {
	cp "$dir/$1" "$dir/go-http.new"
	mv "$dir/go-http.new" "$dir/go-http"
}

echo "== build and start"
(
	cd "$here"
	go build -o "$dir/supervisord" ../../cmd/supervisord
	go build -o "$dir/v1" .
	go build -ldflags '-X main.version=v2' -o "$dir/v2" .
)
printf '#!/bin/sh\necho "this build is broken"\nexit 1\n' >"$dir/broken"
chmod +x "$dir/broken"
deploy v1
sed "s/8080/$port/g" "$here/supervisord.toml" >"$dir/supervisord.toml"
sd check -c "$dir/supervisord.toml"
"$dir/supervisord" run -c "$dir/supervisord.toml" >"$dir/log" 2>&1 &
daemon=$!
until_true both_ready || fail "two workers are not ready"
sd status
get / | grep 'version=v1' || fail "no answer of v1"

echo "== load from here on: a new connection for each request"
: >"$dir/answers"
: >"$dir/failures"
(
	while [ ! -e "$dir/enough" ]; do
		get / >>"$dir/answers" 2>>"$dir/failures" || echo "request failed" >>"$dir/failures"
	done
) &
load=$!

echo "== deploy v2, with a slow request under way"
get '/slow?for=3s' >"$dir/slow" &
slow=$!
until_true grep -q 'slow request' "$dir/log" || fail "the slow request did not begin"
deploy v2
sd reload || fail "reload of v2"
wait "$slow" || fail "the slow request was cut off"
grep 'version=v1 .*waited=3s' "$dir/slow" || fail "the slow request was not finished by the worker that had it"
get / | grep 'version=v2' || fail "v2 does not serve"

echo "== deploy a broken version: it is refused, and v2 serves on"
deploy broken
code=0
sd reload || code=$?
[ $code -eq 1 ] || fail "reload of the broken version exited with $code, not 1"
get / | grep 'version=v2' || fail "v2 does not serve any more"
deploy v2

echo "== reload a bad configuration: it is refused, too"
cp "$dir/supervisord.toml" "$dir/good.toml"
echo 'wrokers = 3' >>"$dir/supervisord.toml"
code=0
sd reload || code=$?
[ $code -eq 3 ] || fail "reload of the bad configuration exited with $code, not 3"
mv "$dir/good.toml" "$dir/supervisord.toml"
both_ready || fail "not both workers are ready any more"

touch "$dir/enough"
wait "$load" || fail "the load"
load=
echo "$(wc -l <"$dir/answers") answers, $(wc -l <"$dir/failures") failures"
[ ! -s "$dir/failures" ] || fail "$(cat "$dir/failures")"

echo "== kill a worker: another one takes its slot"
victim=$(get / | pid_in)
kill -KILL "$victim"
get / >/dev/null || fail "no answer after the kill"
until_true replaced || fail "the killed worker was not replaced"
sd status

echo "== stop"
sd stop
code=0
wait "$daemon" || code=$?
daemon=
[ $code -eq 0 ] || fail "the daemon exited with $code"
[ ! -e "$SUPERVISORD_SOCKET" ] || fail "the control socket is left"
! get / 2>/dev/null || fail "somebody still answers"
echo "== ok"
