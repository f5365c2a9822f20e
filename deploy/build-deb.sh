#!/bin/sh
# Builds a Debian package: the static program, its completions, manual pages and systemd units.
#
#   deploy/build-deb.sh [FOLDER]      puts attache_VERSION_ARCH.deb into FOLDER (default: target/deb)
#
# BINARY=FILE packs a program that is built already; else deploy/build-static.sh builds it. EMULATOR runs one of another architecture, or TOOL names
# a program of the same version that runs here. No service is enabled: /etc/attache/attache.yaml is yours to write first.
set -eu
cd "$(dirname "$0")/.."
out=${1:-target/deb}
if [ -z "${BINARY:-}" ]; then
    deploy/build-static.sh target/static
    BINARY=target/static/attache
fi
# The architecture of the program, not of this machine.
case $(readelf --file-header "$BINARY" | sed -n 's/ *Machine: *//p') in
    *X86-64*) arch=amd64 ;;
    *AArch64*) arch=arm64 ;;
    *) echo "$BINARY is for an architecture that has no package" >&2; exit 1 ;;
esac
tool=${TOOL:-${EMULATOR:+$EMULATOR }$BINARY}
# shellcheck disable=SC2086 # an emulator and its program are two words
version=$($tool --version | cut -d' ' -f2)

# The day of the manual pages is that of the commit: the same sources make the same package.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}
export SOURCE_DATE_EPOCH
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
umask 022
# mktemp makes it for its owner alone, and this is the package's `/`.
chmod 0755 "$root"
mkdir -p "$root/DEBIAN" "$root/usr/bin" "$root/usr/share/man/man1" "$root/usr/share/bash-completion/completions" \
    "$root/usr/share/zsh/vendor-completions" "$root/usr/share/fish/vendor_completions.d" "$root/lib/systemd/system" \
    "$root/usr/share/doc/attache/examples" "$root/etc/attache"
install -m 0755 "$BINARY" "$root/usr/bin/attache"
$tool completions bash > "$root/usr/share/bash-completion/completions/attache"
$tool completions zsh > "$root/usr/share/zsh/vendor-completions/_attache"
$tool completions fish > "$root/usr/share/fish/vendor_completions.d/attache.fish"
$tool man "$root/usr/share/man/man1"
gzip -9n "$root"/usr/share/man/man1/*.1
for unit in deploy/systemd/*.service deploy/systemd/*.socket; do
    sed 's|/usr/local/bin/attache|/usr/bin/attache|g' "$unit" > "$root/lib/systemd/system/$(basename "$unit")"
done
cp LICENSE "$root/usr/share/doc/attache/copyright"
cp CHANGELOG.md "$root/usr/share/doc/attache/"
cp config/*.yaml "$root/usr/share/doc/attache/examples/"
install -m 0755 deploy/debian/postinst deploy/debian/prerm deploy/debian/postrm "$root/DEBIAN/"
size=$(du -sk "$root/usr" | cut -f1)
cat > "$root/DEBIAN/control" <<CONTROL
Package: attache
Version: $version
Architecture: $arch
Maintainer: the attache authors <https://github.com/attache-proxy/attache/issues>
Installed-Size: $size
Section: net
Priority: optional
Homepage: https://github.com/attache-proxy/attache
Description: ambassador sidecar proxy
 The application talks plain HTTP or TCP to localhost:15001; attache finds the
 service, verifies and encrypts, balances, times out, retries and says what
 happened. One static program without dependencies.
CONTROL
mkdir -p "$out"
dpkg-deb --root-owner-group --build "$root" "$out/attache_${version}_${arch}.deb"
