#!/usr/bin/env bash
# Runs puma with the daemon; what is judged is in ../judge.sh.
. "$(dirname "$0")/../judge.sh"
needs puma
prepare puma.rb config.ru
start
judge web
stop
