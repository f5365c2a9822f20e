#!/bin/sh
# Makes the files of a release: static programs for x86-64 and arm64, Debian packages, an SBOM, checksums.
#
#   deploy/release.sh [FOLDER]      puts them into FOLDER (default: target/release-files)
#
# TARGETS chooses the architectures. It needs a C compiler, curl, dpkg-deb and Python 3.11.
# For arm64 on an x86-64 machine it needs the cross compiler (Debian: gcc-aarch64-linux-gnu, libc6-dev-arm64-cross), and qemu-user-static, which
# runs what was built.
set -eu
cd "$(dirname "$0")/.."
out=${1:-target/release-files}
targets=${TARGETS:-"x86_64-unknown-linux-gnu aarch64-unknown-linux-gnu"}
ATTACHE_COMMIT=${ATTACHE_COMMIT:-$(git rev-parse --short=12 HEAD)}
export ATTACHE_COMMIT
host=$(uname -m)

# Before the first build, which takes minutes: whatever is missing.
missing=
need() {
    command -v "$1" > /dev/null || missing="$missing
  $1: $2"
}
need curl "apt-get install curl"
need dpkg-deb "apt-get install dpkg"
need python3 "apt-get install python3"
for target in $targets; do
    machine=${target%%-*}
    [ "$machine" = "$host" ] && continue
    need "$machine-linux-gnu-gcc" "apt-get install gcc-$(echo "$machine" | tr _ -)-linux-gnu, and its libc6-dev-…-cross"
    need "qemu-$machine-static" "apt-get install qemu-user-static"
done
if [ -n "$missing" ]; then
    echo "these are needed and not there:$missing" >&2
    exit 1
fi

# It starts, reads a config, serves a request and ends in order, before anybody gets it.
try() {
    folder=$(mktemp -d)
    cat > "$folder/attache.yaml" <<CONFIG
admin: off
metrics: off
listeners: { out: { bind: "unix:$folder/out.sock", routes: [ { respond: { status: 200, body: "it serves" } } ] } }
CONFIG
    "$@" --version
    "$@" check "$folder/attache.yaml"
    "$@" check config/forward-proxy.yaml
    "$@" run -c "$folder/attache.yaml" 2> "$folder/log" &
    process=$!
    answer=$(curl -s --retry 30 --retry-all-errors --retry-delay 1 --max-time 60 --unix-socket "$folder/out.sock" http://try/ || true)
    kill "$process" || true
    if ! wait "$process" || [ "$answer" != "it serves" ]; then
        echo "$*: it does not serve: \"$answer\"" >&2
        cat "$folder/log" >&2
        exit 1
    fi
    rm -r "$folder"
}

rm -rf "$out"
mkdir -p "$out"
out=$(cd "$out" && pwd)
tool=
for target in $targets; do
    machine=${target%%-*}
    rustup target add "$target"
    emulator=
    if [ "$machine" != "$host" ]; then
        linker="$machine-linux-gnu-gcc"
        key=$(echo "$target" | tr 'a-z-' 'A-Z_')
        export "CARGO_TARGET_${key}_LINKER=$linker" "CC_$(echo "$target" | tr - _)=$linker"
        emulator="qemu-$machine-static"
    fi
    TARGET=$target deploy/build-static.sh "target/static-$machine"
    binary=target/static-$machine/attache
    try ${emulator:+$emulator} "$binary"
    [ -n "$emulator" ] || tool=$binary
    tar -C "target/static-$machine" --owner=0 --group=0 -czf "$out/attache-linux-$machine.tar.gz" attache
    BINARY=$binary EMULATOR=$emulator TOOL=$tool deploy/build-deb.sh "$out"
    # What is in it: crates, C sources, glibc, the dashboard's files (CycloneDX).
    deploy/sbom.py --target "$target" --output "$out/attache-linux-$machine.cdx.json"
done
(cd "$out" && sha256sum -- * > ../SHA256SUMS && mv ../SHA256SUMS .)
ls -l "$out"
