#!/usr/bin/env bash
# Builds a server that takes its sockets by go-systemd, and runs it with the daemon;
# what is judged is in ../judge.sh.
. "$(dirname "$0")/../judge.sh"
needs go
prepare
(cd "$here" && go build -o "$dir/go-activation" .)
start
judge web
stop
