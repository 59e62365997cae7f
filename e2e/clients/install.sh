#!/bin/bash
# Brings the clients that the tests with the build tag clients start: those of npm, two of Debian's log daemons, an
# OpenTelemetry Collector, and Loki's logcli. Does nothing where all are there.
#
# The daemons' packages are unpacked here, not installed: each of them would replace the machine's own log daemon, and they
# exclude each other. So this changes nothing outside of its folder, needs no root, and starts no service.
set -euo pipefail
cd "$(dirname "$0")"

if ! cmp -s npm/package.json npm/node_modules/.installed; then
	npm install --prefix npm --silent --ignore-scripts
	cp npm/package.json npm/node_modules/.installed
fi

if ! [ -x debian/root/usr/sbin/rsyslogd ] || ! [ -x debian/root/usr/sbin/syslog-ng ]; then
	work=$(mktemp -d)
	trap 'rm -rf "$work"' EXIT
	mkdir -p "$work"/{lists,archives}/partial "$work/root"
	apt() {
		apt-get -qq -o Dir::State::Lists="$work/lists" -o Dir::Cache="$work" -o Dir::Cache::Archives="$work/archives" \
			-o APT::Sandbox::User="$(id -un)" -o Debug::NoLocking=true "$@"
	}
	apt update
	# One after the other, with the libraries that the machine lacks.
	for packages in "rsyslog rsyslog-elasticsearch" syslog-ng-core; do
		# shellcheck disable=SC2086 # it is a list
		apt install --yes --no-install-recommends --reinstall --download-only $packages
	done
	for package in "$work"/archives/*.deb; do
		dpkg-deb --extract "$package" "$work/root"
	done
	rm -rf debian/root
	mv "$work/root" debian/root
fi

# The Collector's builder makes a module, and builds it. What the environment says of other modules does not count there.
if ! cmp -s otelcol/builder.yaml otelcol/build/.installed; then
	rm -rf otelcol/build
	version=$(sed -n 's/^  version: //p' otelcol/builder.yaml)
	(cd otelcol && GOFLAGS=-buildvcs=false GOWORK=off go run "go.opentelemetry.io/collector/cmd/builder@v$version" --config builder.yaml)
	cp otelcol/builder.yaml otelcol/build/.installed
fi

# logcli is no library and has a license of its own: a module apart builds it, and nothing of it is linked.
if ! cmp -s logcli/go.mod logcli/build/.installed; then
	rm -rf logcli/build
	mkdir logcli/build
	(cd logcli && GOFLAGS=-buildvcs=false GOWORK=off CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o build/logcli github.com/grafana/loki/v3/cmd/logcli)
	cp logcli/go.mod logcli/build/.installed
fi
