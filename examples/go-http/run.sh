#!/usr/bin/env bash
# Builds the server and the daemon, deploys a new version and a broken one under
# load, kills a worker, and exits non-zero on any surprise.
# ../judge.sh has PORT, DIR and the rest.
. "$(dirname "$0")/../judge.sh"
needs go curl
pool=web slow_path=/slow?for= slow_unit=ms
get() { "${curl[@]}" "$url$1"; }
# deploy FILE: it takes the old one's place at once (rename), as a deployment should.
deploy() {
	cp "$dir/$1" "$dir/go-http.new"
	mv "$dir/go-http.new" "$dir/go-http"
}

echo "== build"
prepare
(cd "$here" && go build -o "$dir/v1" . && go build -ldflags '-X main.version=v2' -o "$dir/v2" .)
printf '#!/bin/sh\necho "this build is broken"\nexit 1\n' >"$dir/broken"
chmod +x "$dir/broken"
deploy v1
start
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
loads=($!)

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
until_true both_ready || fail "not both workers are ready any more"

touch "$dir/enough"
wait "${loads[0]}" || fail "the load"
loads=()
echo "$(wc -l <"$dir/answers") answers, $(wc -l <"$dir/failures") failures"
[ ! -s "$dir/failures" ] || fail "$(cat "$dir/failures")"

kill_one
stop
