#!/bin/sh
# Builds the program as the image holds it: one static file that needs nothing of the system it runs on.
#
#   deploy/build-static.sh [FOLDER]      puts it into FOLDER/attache (default: target/static)
#
# glibc, linked statically, and not musl: docs/decisions/0010-static-with-glibc.md. TARGET chooses another target,
# PROFILE another cargo profile.
set -eu
cd "$(dirname "$0")/.."
target=${TARGET:-$(uname -m)-unknown-linux-gnu}
profile=${PROFILE:-release}
out=${1:-target/static}

# With a target named, build scripts and macros (which must be dynamic) are left alone by the flags.
RUSTFLAGS="${RUSTFLAGS:-} -C target-feature=+crt-static"
export RUSTFLAGS
cargo build --locked --package attache --target "$target" --profile "$profile"
case $profile in
    dev) built=debug ;;
    *) built=$profile ;;
esac
mkdir -p "$out"
cp "${CARGO_TARGET_DIR:-target}/$target/$built/attache" "$out/attache"
chmod 0755 "$out/attache"

# A static program asks for no interpreter.
if readelf --program-headers "$out/attache" | grep -q INTERP; then
    echo "$out/attache needs a dynamic loader: it isn't static" >&2
    exit 1
fi
ls -l "$out/attache"
