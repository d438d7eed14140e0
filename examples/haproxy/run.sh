#!/usr/bin/env bash
# Runs haproxy with the daemon, in front of a server that runs with it, too; what is
# judged is in ../judge.sh.
PATH=$PATH:/usr/sbin
. "$(dirname "$0")/../judge.sh"
needs haproxy go
prepare haproxy.cfg
built examples/go-http "$dir/go-http"
slow_path=/slow?for= slow_unit=ms
start
judge web
stop
