#!/bin/sh
# Builds the static program of the last commit twice, in folders with different names and with different homes of cargo, and compares them.
#
#   deploy/reproducible.sh      ends with 0 where both are the same bytes; PROFILE chooses another cargo profile
#
# Two release builds take as long as that sounds. The second build runs with other file times, no git and another locale and time zone.
set -eu
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
ATTACHE_COMMIT=$(git rev-parse --short=12 HEAD)
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export ATTACHE_COMMIT SOURCE_DATE_EPOCH
unset CARGO_TARGET_DIR
cargo fetch --quiet --locked
home=${CARGO_HOME:-$HOME/.cargo}

build() {
    mkdir -p "$1" "$2"
    git archive HEAD | tar x -C "$1"
    # The same downloads below another path.
    [ -e "$2/registry" ] || ln -s "$home/registry" "$2/registry"
    [ ! -e "$home/config.toml" ] || cp "$home/config.toml" "$2/"
    (cd "$1" && CARGO_HOME=$2 deploy/build-static.sh "$work/$3")
}
build "$work/one" "$work/home" first
(TZ=Asia/Kathmandu LC_ALL=C.UTF-8; export TZ LC_ALL; build "$work/another/with-a-longer-name" "$work/another-home-of-cargo" second)
(cd "$work" && sha256sum first/attache second/attache)
if cmp "$work/first/attache" "$work/second/attache"; then
    echo "both builds are the same bytes"
else
    echo "the builds differ: strings of the folders that are in one of them:" >&2
    strings "$work/second/attache" | grep -F "$work" | sort -u | head >&2
    exit 1
fi
