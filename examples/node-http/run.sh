#!/usr/bin/env bash
# Runs a plain Node server with the daemon, restarts it under load, kills a worker,
# stops it, and exits non-zero on any surprise; ../judge.sh has PORT, DIR and the rest.
. "$(dirname "$0")/../judge.sh"
needs node
prepare app.js drain.js
start
judge web
stop
