#!/usr/bin/env bash
# Builds a server in C that takes its sockets by LISTEN_FDS, and runs it with the
# daemon; what is judged is in ../judge.sh.
. "$(dirname "$0")/../judge.sh"
needs gcc
prepare
gcc -O2 -Wall -Wextra -Werror -o "$dir/server" "$here/server.c"
start
judge web
stop
