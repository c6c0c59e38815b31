#!/bin/sh
# Installs the Debian packages that are missing: install_deps.sh build|test|all
#
# As root or with passwordless sudo it says what it installs and does it, asking nothing. Otherwise it prints the one
# command to run and stops. When nothing is missing it prints nothing and needs no network.
set -eu

build="build-essential cmake ninja-build pkg-config libjpeg62-turbo-dev libpng-dev libwebp-dev libgif-dev
libutf8proc-dev libpcre2-dev libxxhash-dev zlib1g-dev libuv1-dev libcurl4-openssl-dev libssl-dev libyaml-dev
libseccomp-dev"
test="$build libcmocka-dev python3 python3-numpy python3-pil python3-jinja2 python3-venv clang curl openssl"
all="$test libclang-rt-14-dev valgrind nginx haproxy prometheus gcc-aarch64-linux-gnu libc6-dev-arm64-cross
qemu-user"

case "${1:-}" in
build) wanted=$build ;;
test) wanted=$test ;;
all) wanted=$all ;;
*)
    echo "usage: $0 build|test|all" >&2
    exit 2
    ;;
esac

if ! command -v dpkg-query >/dev/null 2>&1 || ! command -v apt-get >/dev/null 2>&1; then
    echo "This is not a Debian system, so nothing is installed. ocellus is built with what Debian 12 calls:" >&2
    echo $wanted >&2
    exit 0
fi

missing=""
for p in $wanted; do
    state=$(dpkg-query -W -f='${Status}' "$p" 2>/dev/null || true)
    [ "$state" = "install ok installed" ] || missing="$missing $p"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ]; then
    as_root=""
elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
    as_root="sudo -n"
else
    echo "Some Debian packages are missing, and this user may not install them. Run once:" >&2
    echo "  sudo apt-get install --no-install-recommends$missing" >&2
    exit 1
fi

apt() {
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o Dpkg::Use-Pty=0 -o APT::Update::Error-Mode=any \
        -o Acquire::Retries=3 "$@" </dev/null
}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
quietly() { # shows the output only when the command fails
    if ! "$@" >"$log" 2>&1; then
        cat "$log" >&2
        return 1
    fi
}

echo "Installing Debian packages:$missing"
lists=$(find /var/lib/apt/lists -name '*_Packages*' 2>/dev/null | head -n 1)
if [ -z "$lists" ]; then
    echo "The package lists are missing: apt-get update"
    quietly apt update || {
        echo "apt-get update failed: see above. Is the network there, and /etc/apt/sources.list right?" >&2
        exit 1
    }
fi
if ! apt install --no-install-recommends $missing >"$log" 2>&1; then
    echo "The first try failed, perhaps since the package lists are old: apt-get update"
    quietly apt update && quietly apt install --no-install-recommends $missing || {
        echo "apt-get could not install:$missing" >&2
        exit 1
    }
fi
