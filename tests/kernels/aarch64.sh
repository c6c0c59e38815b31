#!/bin/sh
# Builds the kernels and their checker for aarch64 and runs them under qemu-user.
# Needs gcc-aarch64-linux-gnu, libc6-dev-arm64-cross and qemu-user. Usage: aarch64.sh [build dir]
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
out=${1:-$root/build/aarch64}
mkdir -p "$out"
aarch64-linux-gnu-gcc -static -std=gnu11 -O2 -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes \
    -Wvla -fno-strict-aliasing -ffp-contract=off -pthread -I "$root/src" -o "$out/check_kernels" \
    "$root"/src/kernels/*.c "$root"/src/kernels/ref/*.c "$root"/src/kernels/tiled/*.c "$root"/src/kernels/arm/*.c \
    "$root"/src/base/err.c "$root"/src/base/pool.c "$root"/src/base/topology.c "$root"/tests/kernels/*.c -lm
exec qemu-aarch64 "$out/check_kernels" --quick
