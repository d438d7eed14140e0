#!/usr/bin/env bash
# Builds the echo server and the daemon, talks to it by TCP and by its Unix
# socket, restarts it under a connected client, and exits non-zero on any surprise.
#
#	PORT  port to listen on (default 8124)
#	DIR   empty directory for everything that is built and written (default: a temporary one)
#
# Exit code 77: something is missing to run it.
set -euo pipefail
for tool in go nc; do
	command -v $tool >/dev/null || { echo "needs $tool" >&2; exit 77; }
done
here=$(cd "$(dirname "$0")" && pwd)
port=${PORT:-8124}
dir=${DIR:-}
[ -n "$dir" ] || dir=$(mktemp -d)
export SUPERVISORD_SOCKET=$dir/control.sock
daemon=
declare -A client input

fail() {
	echo "FAILED: $*" >&2
	[ ! -f "$dir/log" ] || sed 's/^/  log: /' "$dir/log" >&2
	exit 1
}
cleanup() {
	for name in "${!client[@]}"; do hang_up "$name"; done
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
both_ready() { sd status 2>/dev/null | grep -q '^echo .* 2 of 2 '; }
logged() { [ "$(grep -cx "$1" "$dir/log")" -eq "$2" ]; }

# call NAME ARGUMENT... connects a client, which stays until it hangs up.
call() {
	local name=$1 fd
	shift
	mkfifo "$dir/$name.in"
	nc "$@" <"$dir/$name.in" >"$dir/$name.out" &
	client[$name]=$!
	exec {fd}>"$dir/$name.in"
	input[$name]=$fd
	hears "$name" $'hello\r'
}
says() { echo "$2" >&"${input[$1]}"; }
hears() { until_true grep -qx "$2" "$dir/$1.out" || fail "client $1 does not get \"$2\""; }
hang_up() {
	local fd=${input[$1]}
	exec {fd}>&-
	kill "${client[$1]}" 2>/dev/null || true
	unset "client[$1]" "input[$1]"
}

echo "== build and start"
(
	cd "$here"
	go build -o "$dir/supervisord" ../../cmd/supervisord
	go build -o "$dir/go-echo" .
)
sed "s/8124/$port/g" "$here/supervisord.toml" >"$dir/supervisord.toml"
sd check -c "$dir/supervisord.toml"
"$dir/supervisord" run -c "$dir/supervisord.toml" >"$dir/log" 2>&1 &
daemon=$!
until_true both_ready || fail "two workers are not ready"
logged 'server bound' 2 || fail "not both workers said that they are bound"
sd status

echo "== nc 127.0.0.1 $port"
call tcp 127.0.0.1 "$port"
says tcp 'one two three'
hears tcp 'one two three'
cat "$dir/tcp.out"

echo "== nc -U echo.sock"
call unix -U "$dir/echo.sock"
says unix 'four five six'
hears unix 'four five six'
cat "$dir/unix.out"
hang_up unix
until_true logged 'client disconnected' 1 || fail "the end of a client was not noticed"

echo "== restart: the connected client keeps its worker, new ones get new workers"
sd restart || fail "restart"
says tcp 'seven eight nine'
hears tcp 'seven eight nine'
sd status | grep ' draining ' || fail "the client's worker does not drain"
call new 127.0.0.1 "$port"
says new 'ten'
hears new 'ten'
hang_up tcp
hang_up new
until_true logged 'client disconnected' 3 || fail "the end of the clients was not noticed"
drained() { ! sd status | grep -q ' draining '; }
until_true drained || fail "a worker without a client does not end"

echo "== stop"
sd stop
code=0
wait "$daemon" || code=$?
daemon=
[ $code -eq 0 ] || fail "the daemon exited with $code"
logged 'client connected' 3 || fail "not 3 clients"
[ ! -e "$dir/echo.sock" ] || fail "echo.sock is left"
[ ! -e "$SUPERVISORD_SOCKET" ] || fail "the control socket is left"
! nc 127.0.0.1 "$port" </dev/null 2>/dev/null || fail "somebody still answers"
echo "== ok"
