#!/bin/sh
# Builds the program as the image holds it: one static file that needs nothing of the system it runs on.
#
#   deploy/build-static.sh [FOLDER]      puts it into FOLDER/attache (default: target/static)
#
# glibc, linked statically, and not musl: docs/decisions/0010-static-with-glibc.md.
# Laid out by what deploy/attache.profdata counted: docs/decisions/0014-profile-guided-builds.md.
# TARGET chooses another target, PROFILE another cargo profile.
set -eu
cd "$(dirname "$0")/.."
target=${TARGET:-$(uname -m)-unknown-linux-gnu}
profile=${PROFILE:-release}
out=${1:-target/static}

# Nothing of the folders in which it is built gets into the program: two builds of one commit by the same compilers are the same
# bytes (deploy/reproducible.sh). Sources of crates are fetched first, because the folder's name depends on the registry's.
cargo fetch --quiet --locked --target "$target"
home=$(cd "${CARGO_HOME:-$HOME/.cargo}" && pwd)
rust="--remap-path-prefix=$(pwd)=/attache --remap-path-prefix=$home=/cargo"
c="-ffile-prefix-map=$(pwd)=/attache -ffile-prefix-map=$home=/cargo"
for registry in "$home"/registry/src/*; do
    rust="$rust --remap-path-prefix=$registry=/crates"
    c="$c -ffile-prefix-map=$registry=/crates"
done
if [ -n "${CARGO_TARGET_DIR:-}" ]; then
    # Of two prefixes that fit, the last one counts.
    rust="$rust --remap-path-prefix=$CARGO_TARGET_DIR=/attache/target"
    c="$c -ffile-prefix-map=$CARGO_TARGET_DIR=/attache/target"
fi
# With a target named, build scripts and macros (which must be dynamic) are left alone by the flags.
RUSTFLAGS="${RUSTFLAGS:-} -C target-feature=+crt-static -C profile-use=$(pwd)/deploy/attache.profdata $rust"
CFLAGS="${CFLAGS:-} $c"
# What asks for the time of the build gets the time of the commit.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
export RUSTFLAGS CFLAGS SOURCE_DATE_EPOCH
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
