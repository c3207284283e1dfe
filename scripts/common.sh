# Shared by the scripts beside it, which source it: messages, long steps, packages.
# shellcheck shell=bash
# Works with bash 3.2, because that is what macOS has.

set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
mkdir -p build
log=build/setup.log

# A login shell finds Go there; sudo, cron and CI often do not.
command -v go >/dev/null || PATH=$PATH:/usr/local/go/bin:/usr/lib/go/bin
# And su without a dash leaves root without these folders.
case $PATH in */usr/sbin*) ;; *) PATH=$PATH:/usr/sbin:/sbin ;; esac

say() { printf 'fob: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# It takes root to install packages and to start the engine, and Debian or a
# relative of it, because we know only their package names.
can_install() {
	[ "$(id -u)" = 0 ] && have apt-get && grep -qE '^ID(_LIKE)?=.*debian' /etc/os-release 2>/dev/null
}

# limit SECONDS COMMAND…: macOS has no timeout(1); there the command's own limits must do.
limit() {
	if have timeout; then timeout "$@"; else shift; "$@"; fi
}

# step WHAT COMMAND…: prints a line before and after the command, and a sign of life every ten
# seconds. The command's output goes to the log, and to the screen only if it fails.
step() {
	local what=$1 child start=$SECONDS next=10 took line
	shift
	say "$what"
	printf '\n== %s\n' "$what" >>"$log"
	line=$(wc -l <"$log")
	# It gets a process group of its own, so that an interrupt ends all of it and not only its shell.
	set -m
	"$@" >>"$log" 2>&1 </dev/null &
	child=$!
	set +m
	# shellcheck disable=SC2064
	trap "kill -- -$child 2>/dev/null; exit 130" INT TERM HUP
	while kill -0 "$child" 2>/dev/null; do
		sleep 0.3
		took=$((SECONDS - start))
		if [ "$took" -ge "$next" ]; then
			say "  … ${took} s: $(tail -n 1 "$log" | tr -d '\r' | cut -c 1-100)"
			next=$((took + 10))
		fi
	done
	trap - INT TERM HUP
	if ! wait "$child"; then
		tail -n "+$((line + 1))" "$log" | tail -n 30 >&2
		die "that failed (above: the end of $log); put right what it complains of and run the same command again"
	fi
	say "  done in $((SECONDS - start)) s"
}

apt_run() {
	DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 \
		apt-get -y -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 "$@"
}

# A foreign repository that cannot be reached must not stop us. If something is really
# missing, installing the packages will fail.
apt_refresh() { apt_run update || true; }

# apt_lists: updates the package lists, once a run.
apt_lists() {
	[ -z "${apt_fresh:-}" ] || return 0
	step "refreshing the package lists" apt_refresh
	apt_fresh=yes
}

# apt_install PACKAGE…
apt_install() {
	apt_lists
	step "installing $*" apt_run install --no-install-recommends "$@"
}

apt_offers() { [[ $(apt-cache policy "$1" 2>/dev/null) == *"Candidate: "[^\(]* ]]; }

# need COMMAND[:PACKAGE]…: makes sure that the commands are there.
need() {
	local pair missing="" packages=""
	for pair in "$@"; do
		have "${pair%%:*}" && continue
		missing="$missing ${pair%%:*}"
		packages="$packages ${pair#*:}"
	done
	[ -n "$missing" ] || return 0
	say "missing:$missing"
	can_install || die "install them and run the same command again (their Debian packages:$packages)"
	# shellcheck disable=SC2086
	apt_install $packages
}

# without_services COMMAND…: keeps Debian's packages from starting the servers that they install.
without_services() {
	local policy=/usr/sbin/policy-rc.d status=0
	if ! can_install || [ -e "$policy" ]; then
		"$@"
		return
	fi
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod 755 "$policy"
	("$@") || status=$?
	rm -f "$policy"
	return "$status"
}
