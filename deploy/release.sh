#!/bin/sh
# Makes the files of a release: static programs for x86-64 and arm64, Debian packages, an SBOM, checksums.
#
#   deploy/release.sh [FOLDER]      puts them into FOLDER (default: target/release-files)
#
# TARGETS chooses the architectures. arm64 on an x86-64 machine needs the cross compiler (Debian: gcc-aarch64-linux-gnu,
# libc6-dev-arm64-cross) and, to run what was built once, qemu-user.
set -eu
cd "$(dirname "$0")/.."
out=${1:-target/release-files}
targets=${TARGETS:-"x86_64-unknown-linux-gnu aarch64-unknown-linux-gnu"}
ATTACHE_COMMIT=${ATTACHE_COMMIT:-$(git rev-parse --short=12 HEAD)}
export ATTACHE_COMMIT
mkdir -p "$out"
host=$(uname -m)
tool=
for target in $targets; do
    machine=${target%%-*}
    rustup target add "$target"
    run=
    if [ "$machine" != "$host" ]; then
        linker="$machine-linux-gnu-gcc"
        key=$(echo "$target" | tr 'a-z-' 'A-Z_')
        export "CARGO_TARGET_${key}_LINKER=$linker" "CC_$(echo "$target" | tr - _)=$linker"
        run="qemu-$machine-static"
    fi
    TARGET=$target deploy/build-static.sh "target/static-$machine"
    binary=target/static-$machine/attache
    # It starts, and reads a config, before anybody gets it.
    ${run:+$run} "$binary" --version
    ${run:+$run} "$binary" check config/forward-proxy.yaml
    [ -n "$run" ] || tool=$binary
    tar -C "target/static-$machine" -czf "$out/attache-linux-$machine.tar.gz" attache
    BINARY=$binary TOOL=${tool:-$binary} deploy/build-deb.sh "$out"
done
# What is in it, by crate and version (CycloneDX).
cargo cyclonedx --format json --manifest-path crates/attache/Cargo.toml --override-filename attache-sbom
mv crates/attache/attache-sbom.json "$out/"
(cd "$out" && sha256sum -- * > SHA256SUMS.new && grep -v SHA256SUMS SHA256SUMS.new > SHA256SUMS && rm SHA256SUMS.new)
ls -l "$out"
