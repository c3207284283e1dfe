# Gets base images: pulls them, or makes stand-ins if no registry can be reached.
# shellcheck shell=bash

image_present() { docker image inspect "$1" >/dev/null 2>&1; }

# image_pull NAME: a registry that refuses fails at once, and a silent one after
# the engine's 15 seconds. The limit is for one that trickles.
image_pull() {
	say "image $1 is not there: pulling it"
	limit 900 docker pull "$1" >&2 && return
	say "  $1 cannot be pulled here"
	return 1
}

# image_debian NAME: makes sure that a Debian image is there.
image_debian() {
	local suite
	image_present "$1" && return
	image_pull "$1" && return
	case $1 in
	debian:*) ;;
	*) die "only debian:… images can be stood in for: docker load $1 from elsewhere, or choose another with FOB_BASE_IMAGE" ;;
	esac
	can_install || die "bring the image here (docker save $1 | ssh … docker load), or run this as root on Debian, which builds a stand-in"
	suite=${1#debian:}
	need debootstrap
	step "building a stand-in for $1 with debootstrap (a minute or two; a later docker pull $1 replaces it)" \
		standin_debian "$1" "${suite%-slim}"
}

# standin_debian NAME SUITE: makes a minimal Debian with what the official image
# has, and with this machine's own certificates. ca-certificates includes them when
# it is installed, and curl, Python and Debian's Node use those.
standin_debian() {
	local root
	# Not /tmp: that may be in memory, or forbid device files.
	root=$(mktemp -d /var/tmp/fob-standin.XXXXXX)
	# shellcheck disable=SC2064
	trap "rm -rf '$root'" EXIT
	debootstrap --variant=minbase "$2" "$root" "${DEBIAN_MIRROR:-http://deb.debian.org/debian}"
	if [ -z "${DEBIAN_MIRROR:-}" ] && [ "$2" != sid ]; then
		printf 'deb http://deb.debian.org/%s main\n' "debian $2" "debian $2-updates" "debian-security $2-security" \
			>"$root/etc/apt/sources.list"
	fi
	mkdir -p "$root/usr/local/share/ca-certificates"
	find /usr/local/share/ca-certificates -name '*.crt' -exec cp -L {} "$root/usr/local/share/ca-certificates/" \; 2>/dev/null || true
	printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
	chmod 755 "$root/usr/sbin/policy-rc.d"
	# Remove traces of this machine, and weight: debootstrap copied our resolv.conf and hostname.
	rm -rf "$root"/etc/hostname "$root"/etc/resolv.conf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* \
		"$root"/var/log/*.log "$root"/usr/share/doc/* "$root"/usr/share/man/* "$root"/usr/share/locale/*
	printf 'path-exclude /usr/share/%s/*\n' doc man locale >"$root/etc/dpkg/dpkg.cfg.d/slim"
	printf '%s\n' 'APT::Keep-Downloaded-Packages "false";' 'Dir::Cache::pkgcache "";' 'Dir::Cache::srcpkgcache "";' \
		'Acquire::Languages "none";' >"$root/etc/apt/apt.conf.d/slim"
	tar -C "$root" -c . | docker import \
		-c 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
		-c 'CMD ["bash"]' -c 'LABEL fob.standin=debootstrap' - "$1"
}

# image_go NAME: makes sure that the Dockerfile's build image is there.
image_go() {
	image_present "$1" && return
	image_pull "$1" && return
	[ "$(go env GOHOSTOS)" = linux ] || die "bring the image here: docker save $1 | ssh … docker load"
	image_debian debian:trixie-slim
	step "building a stand-in for $1 from debian:trixie-slim and this machine's Go" standin_go "$1" debian:trixie-slim
}

# standin_go NAME BASE
standin_go() {
	local goroot context
	goroot=$(go env GOROOT)
	context=$(mktemp -d)
	# shellcheck disable=SC2064
	trap "rm -rf '$context'" EXIT
	cat >"$context/Dockerfile" <<-END
		FROM $2
		RUN apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/*
		COPY $(basename "$goroot") /usr/local/go
		ENV PATH=/go/bin:/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin GOPATH=/go GOTOOLCHAIN=local
		LABEL fob.standin=host-go
	END
	tar -c -C "$context" Dockerfile -C "$(dirname "$goroot")" "$(basename "$goroot")" | docker build -t "$1" -
}
