#!/usr/bin/env bash
# Makes a certificate and runs a server of HTTPS and HTTP/2 with the daemon; what is
# judged is in ../judge.sh, here with clients of TLS.
. "$(dirname "$0")/../judge.sh"
needs node openssl
prepare app.js drain.js client.js
url=https://127.0.0.1:$port
curl+=(--insecure)
openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=localhost \
	-keyout "$dir/key.pem" -out "$dir/cert.pem" 2>/dev/null || fail "no certificate"

# load new: a new connection of HTTPS for each request. load kept: sessions of HTTP/2.
load() {
	if [ "$1" = new ]; then
		while get / >/dev/null 2>>"$dir/failures"; do
			[ ! -e "$dir/enough" ] || exit 0
		done &
	else
		node "$dir/client.js" "https://127.0.0.1:$((port + 1))" >"$dir/$1" 2>&1 &
	fi
	loads+=($!)
	[ "$1" = new ] || until_true grep -q begun "$dir/$1" || fail "no HTTP/2"
}
unload() {
	touch "$dir/enough" # and a failure ends it before
	wait "${loads[0]}" || true
	kill "${loads[1]}"
	wait "${loads[1]}" || true
	loads=()
}
report() { cat "$dir/kept"; }
lossless() {
	case $1 in
	new) [ ! -s "$dir/failures" ] ;;
	kept) grep -q ' 0 failures' "$dir/kept" ;;
	esac
}

start
judge web
! grep -q ' in 1 sessions' "$dir/kept" || fail "the session was not told to go elsewhere"
stop
