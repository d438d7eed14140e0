#!/usr/bin/env bash
# Installs Express and Fastify from npm, and runs an application of each with the
# daemon; what is judged is in ../judge.sh.
. "$(dirname "$0")/../judge.sh"
needs node npm
prepare drain.js express.js fastify.js package.json
npm install --silent --no-audit --no-fund --prefix "$dir" || fail "npm install"
start
judge express "$port"
judge fastify $((port + 1))
stop
