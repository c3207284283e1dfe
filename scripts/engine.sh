# Finds the Docker engine, or installs and starts it on a bare Debian machine.
# shellcheck shell=bash

engine_log=/var/log/fob-dockerd.log

engine_answers() {
	have docker && limit 20 docker version --format '{{.Server.Version}}' >/dev/null 2>&1
}

# engine_up: returns when an engine answers. If one answers already, it does nothing else.
engine_up() {
	engine_answers && return
	if [ -n "${DOCKER_HOST:-}" ] && have docker; then
		die "no Docker engine answers at DOCKER_HOST=$DOCKER_HOST: start it there, or unset DOCKER_HOST to use this machine's"
	fi
	can_install || engine_advice

	# The socket may belong to another machine or to an outer engine. Then only the client is missing.
	if ! have docker && { [ -n "${DOCKER_HOST:-}" ] || [ -S /var/run/docker.sock ]; }; then
		say "missing: the docker command"
		engine_client
		engine_answers && return
		[ -z "${DOCKER_HOST:-}" ] || die "no Docker engine answers at DOCKER_HOST=$DOCKER_HOST: start it there, or unset DOCKER_HOST"
	fi
	if ! have dockerd; then
		say "missing: a Docker engine"
		engine_install
	fi
	engine_answers || engine_start
}

# What to tell the user to do if we may not do it ourselves.
engine_advice() {
	if [ -S /var/run/docker.sock ] && [ ! -w /var/run/docker.sock ]; then
		die "no access to /var/run/docker.sock: sudo usermod -aG docker $(id -un), log in anew, and run the same command again"
	fi
	if ! have docker; then
		die "Docker is missing: install it (https://docs.docker.com/get-started/get-docker/), or on Debian run this as root, which installs it; without any isolation: FOB_ENGINE=process make run"
	fi
	case $(uname -s) in
	Linux) die "docker is installed but its engine does not answer: sudo systemctl start docker (or start Docker Desktop), and run the same command again" ;;
	*) die "docker is installed but its engine does not answer: start Docker Desktop (or colima, OrbStack …), and run the same command again" ;;
	esac
}

# Debian 13 has the client in a package of its own, Debian 12 has it in docker.io.
engine_client() {
	apt_lists
	if apt_offers docker-cli; then apt_install docker-cli; else apt_install docker.io; fi
}

engine_install() {
	local packages="docker.io iptables ca-certificates tini"
	apt_lists
	if ! have docker && apt_offers docker-cli; then packages="$packages docker-cli"; fi
	# With AppArmor in the kernel but no parser installed, the engine starts but runs no containers.
	if grep -qs Y /sys/module/apparmor/parameters/enabled; then packages="$packages apparmor"; fi
	# shellcheck disable=SC2086
	apt_install $packages
}

engine_start() {
	local pid="" tries=0 file
	if [ -d /run/systemd/system ]; then
		step "starting the Docker engine (systemctl start docker)" systemctl start docker
	else
		say "starting the Docker engine in the background (its log: $engine_log)"
		if ! grep -qE ' cgroup2? ' /proc/mounts; then
			mount -t cgroup2 none /sys/fs/cgroup
		fi
		# A crash may have left these files. The engine refuses to start while any process has an ID from them.
		for file in /var/run/docker.pid /var/run/docker/containerd/containerd.pid; do
			[ -e "$file" ] || continue
			grep -qsE 'dockerd|containerd' "/proc/$(cat "$file")/cmdline" || rm -f "$file"
		done
		# setsid, so that it outlives make and its terminal.
		setsid dockerd >>"$engine_log" 2>&1 </dev/null &
		pid=$!
	fi
	until engine_answers; do
		tries=$((tries + 1))
		if [ -n "$pid" ] && ! kill -0 "$pid" 2>/dev/null; then
			engine_complaints
			die "the Docker engine ended (above: the end of $engine_log); put right what it complains of and run the same command again"
		fi
		if [ "$tries" -ge 120 ]; then
			[ -z "$pid" ] || engine_complaints
			die "the Docker engine does not answer after a minute; see $engine_log, or: journalctl -u docker"
		fi
		sleep 0.5
	done
	say "  it answers"
}

engine_complaints() { grep -v 'level=info' "$engine_log" | tail -n 5 >&2 || true; }

# engine_host: makes docker commands and Go programs use the same engine. The former follow the user's
# context (Docker Desktop, colima, rootless), the latter only DOCKER_HOST.
engine_host() {
	local host
	[ -z "${DOCKER_HOST:-}" ] || return 0
	host=$(docker context inspect --format '{{.Endpoints.docker.Host}}' 2>/dev/null) || return 0
	case $host in
	unix:///var/run/docker.sock) ;;
	unix://* | tcp://*) export DOCKER_HOST=$host ;;
	esac
}
