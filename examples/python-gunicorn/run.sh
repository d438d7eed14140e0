#!/usr/bin/env bash
# Runs gunicorn with the daemon; what is judged is in ../judge.sh.
. "$(dirname "$0")/../judge.sh"
needs gunicorn
prepare app.py gunicorn.conf.py
start
judge web
stop
