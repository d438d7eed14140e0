#!/usr/bin/env bash
# Runs an ASGI application under uvicorn and under hypercorn with the daemon; what is
# judged is in ../judge.sh.
PATH=/usr/bin:$PATH # the Python that the system's packages are for
. "$(dirname "$0")/../judge.sh"
needs python3
python3 -c 'import hypercorn, uvicorn' 2>/dev/null || { echo "needs uvicorn and hypercorn for $(command -v python3)" >&2; exit 77; }
prepare app.py serve.py
start
judge uvicorn "$port"
judge hypercorn $((port + 1))
stop
