#!/usr/bin/env bash
# Runs the Python server with the daemon; what is judged is in ../judge.sh, and here that
# accepted connections are counted, and what the program says without supervisord.
. "$(dirname "$0")/../judge.sh"
needs python3
python3 -c 'import sys; sys.exit(sys.version_info < (3, 9))' || { echo "needs Python 3.9" >&2; exit 77; }
prepare app.py supervisord_worker.py
start
judge web

echo "== accepted connections are counted"
accepted() { rows | awk '{ sum += $7 } END { print sum }'; }
accepted_is() { [ "$(accepted)" -ge "$1" ]; } # or more: what was counted late
before=$(accepted)
get / >/dev/null
get / >/dev/null
until_true accepted_is $((before + 2)) || fail "2 more were accepted, and status says $before and then $(accepted)"
stop

echo "== without supervisord the program says why it does not run"
code=0
(cd "$dir" && exec python3 -B app.py "127.0.0.1:$port") 2>"$dir/alone" || code=$?
[ $code -ne 0 ] || fail "it ran"
grep SUPERVISORD_FD "$dir/alone" | tail -n 1 | grep Error || fail "it says: $(cat "$dir/alone")"
echo "== ok"
