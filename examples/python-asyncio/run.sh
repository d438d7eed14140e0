#!/usr/bin/env bash
# Runs an asyncio server with the daemon; what is judged is in ../judge.sh.
. "$(dirname "$0")/../judge.sh"
needs python3
python3 -c "import sys; sys.exit(sys.version_info < (3, 8))" || { echo "needs Python 3.8" >&2; exit 77; }
prepare app.py
start
judge web
stop
