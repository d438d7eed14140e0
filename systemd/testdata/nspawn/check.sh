#!/bin/bash
# Runs inside a container with systemd as PID 1. Each line "ok NAME" or "FAILED
# NAME: why" is a result; the last line is "end".
cd /opt/test || exit 1
trap 'echo end' EXIT
check() { # NAME COMMAND...
	local name=$1 out
	shift
	if out=$("$@" 2>&1); then echo "ok $name"; else echo "FAILED $name: $out"; fi
}
# until COMMAND succeeds, at most 10 s
await() {
	local end=$((SECONDS + 10))
	until "$@" >/dev/null 2>&1; do
		if ((SECONDS > end)); then echo "not within 10 s: $*"; return 1; fi
		read -rt 0.05 <> <(:)
	done
	return 0
}
sd() { RUNTIME_DIRECTORY=/run/supervisord /opt/test/supervisord "$@"; }
status() { sd status --json; }
show() { systemctl show -p "$1" --value supervisord.service; }
is() { [[ $1 == "$2" ]] || { echo "is '$1', not '$2'"; return 1; }; }
has() { [[ $1 == *"$2"* ]] || { echo "'$1' does not have '$2'"; return 1; }; }
served() { has "$(curl -sS --max-time 10 "$@")" "pool=web"; }
by_name() { status | tr -d ' \n' | grep -q '"name":"'"$1"'","network":"'"$2"'","address":"'"$3"'"'; }
main_pid_same() { is "$(show MainPID)" "$pid"; }
reload_ok() { systemctl reload supervisord.service; }
reload_bad() { ! systemctl reload supervisord.service; }
# WatchdogSec is 2 s: without pings the daemon would have been killed.
survives_watchdog() {
	local first
	first=$(show WatchdogTimestampMonotonic)
	await pinged_after "$((first + 3000000))" && main_pid_same && is "$(show NRestarts)" 0
}
pinged_after() { (($(show WatchdogTimestampMonotonic) > $1)); }
reload_replaces() {
	local before after
	before=$(workers)
	sed -i 's/^VERSION.*/VERSION = "2"/' supervisord.toml
	systemctl reload supervisord.service || return 1
	after=$(workers)
	[[ $before != "$after" ]] || { echo "workers are still $before"; return 1; }
}
workers() { status | tr -d ' \n' | grep -o '"pid":[0-9]*' | sort -u | tr '\n' ' '; }
nothing_left() { await gone; }
gone() { [[ -z $(pgrep -x supervisord; pgrep -x worker) ]]; }

systemctl start supervisord.socket supervisord-plain.socket
is "$(systemctl is-active supervisord.service)" inactive >/dev/null || echo "FAILED before: the service runs already"

# A client that waits before the daemon is up starts it, and is served.
check activation-by-tcp served http://127.0.0.1:8080/
check active await systemctl is-active supervisord.service
pid=$(show MainPID)
check served-by-address served --unix-socket /run/plain.sock http://x/
check served-on-own-socket served http://127.0.0.1:8081/
check inherited-by-name by_name named tcp 127.0.0.1:8080
check inherited-by-address by_name byaddress unix /run/plain.sock
check status-text has "$(show StatusText)" serving
check watchdog survives_watchdog
check reload reload_ok
check reload-replaces reload_replaces
check same-main-pid main_pid_same
echo 'nonsense = 1' >>supervisord.toml
check bad-reload-fails reload_bad
check bad-reload-harmless served http://127.0.0.1:8080/
check still-active is "$(systemctl is-active supervisord.service)" active
sed -i '$d' supervisord.toml

# kill -9 of the master, again and again, with clients coming all the time: the workers
# stay, the next master knows them, and nobody is refused.
worker_pids() { pgrep -x worker | sort | tr '\n' ' '; }
restarts_are() { is "$(show NRestarts)" "$1" && is "$(systemctl is-active supervisord.service)" active && has "$(status | tr -d ' \n')" '"recoveries":'"$1"; }
survives_crashes() {
	local before n main requests
	before=$(worker_pids)
	(while [[ ! -e enough ]]; do for n in 1 2 3 4; do curl -sS --max-time 10 http://127.0.0.1:8081/ & done; wait; done >answers 2>failures) &
	for ((n = 1; n <= $1; n++)); do
		main=$(show MainPID)
		kill -KILL "$main"
		await restarts_are $n || return 1
		is "$(worker_pids)" "$before" || return 1
	done
	touch enough
	wait
	requests=$(grep -c pool=web answers)
	[[ ! -s failures ]] || { echo "of $requests requests some failed: $(head -3 failures)"; return 1; }
	((requests > 50)) || { echo "only $requests requests"; return 1; }
}
check crashes survives_crashes 20
check served-after-crashes served http://127.0.0.1:8080/
check served-by-address-after-crashes served --unix-socket /run/plain.sock http://x/
sed -i 's/^VERSION.*/VERSION = "1"/' supervisord.toml
check reload-after-crashes systemctl reload supervisord.service
two_workers() { is "$(worker_pids | wc -w)" 2; }
check workers-after-crashes await two_workers

# A restart of the service: the sockets stay with systemd, so nobody is refused.
check restart systemctl restart supervisord.service
check served-after-restart served http://127.0.0.1:8080/
check served-by-address-after-restart served --unix-socket /run/plain.sock http://x/

systemctl stop supervisord.socket supervisord-plain.socket supervisord.service
check stopped-clean is "$(show Result)" success
check nothing-left nothing_left
check no-log-errors bash -c '! journalctl -u supervisord.service -p err -q | grep -vi "configuration refused\|reload failed" | grep .'
journalctl -u supervisord.service --no-pager | tail -60 >/opt/test/journal
