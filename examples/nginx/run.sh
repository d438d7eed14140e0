#!/usr/bin/env bash
# Runs nginx with the daemon; what is judged is in ../judge.sh.
PATH=$PATH:/usr/sbin
. "$(dirname "$0")/../judge.sh"
needs nginx
prepare nginx.conf
head -c 600 /dev/zero | tr '\0' x >"$dir/slow.txt" # a slow answer, since nginx cannot wait
chmod 711 "$dir" && chmod 644 "$dir/slow.txt"      # its processes are of another user when this one is root
kept=lossy # it closes idle connections when it is told to end
start
judge web
stop
