#!/bin/sh
# Builds the kernels and their checker for aarch64, with gcc and with clang, and runs gcc's under qemu-user as each kind of CPU that
# the kernels tell apart. Prints a line for each in the style of cmocka; what fails is printed whole.
#
# Needs cmake, ninja, gcc-aarch64-linux-gnu, libc6-dev-arm64-cross, qemu-user and clang. Usage: aarch64.sh [build dir [jobs]]
set -u
root=$(cd "$(dirname "$0")/../.." && pwd)
out=${1:-$root/build/aarch64}
jobs=${2:-2}
failures=0

# case_ NAME COMMAND...
case_() {
    name=aarch64.$1
    shift
    if "$@" >"$out/$name.log" 2>&1; then
        echo "[       OK ] $name"
    else
        failures=$((failures + 1))
        cat "$out/$name.log"
        echo "[  FAILED  ] $name"
    fi
}

# build COMPILER [MORE OPTIONS OF CMAKE]
build() {
    compiler=$1
    shift
    cmake -S "$root/tests/kernels/aarch64" -B "$out/$compiler" -G Ninja --log-level=NOTICE -DCMAKE_SYSTEM_NAME=Linux \
        -DCMAKE_SYSTEM_PROCESSOR=aarch64 "-DCMAKE_C_COMPILER=$compiler" "$@" &&
        cmake --build "$out/$compiler" -j "$jobs"
}

# check CPU ISA...: by their names, so that one which this CPU is said to lack is a failure
check() {
    cpu=$1
    shift
    for isa in "$@"; do
        qemu-aarch64 -cpu "$cpu" "$out/aarch64-linux-gnu-gcc/check_kernels" --quick --isa "$isa" || return 1
    done
}

# refuse CPU ISA: what the CPU lacks must be said to be lacking
refuse() {
    qemu-aarch64 -cpu "$1" "$out/aarch64-linux-gnu-gcc/check_kernels" --quick --isa "$2" >"$out/refused" && return 1
    cat "$out/refused"
    grep -q "has no" "$out/refused"
}

mkdir -p "$out"
case_ build_gcc build aarch64-linux-gnu-gcc
case_ build_clang build clang -DCMAKE_C_COMPILER_TARGET=aarch64-linux-gnu
case_ base check cortex-a72 ref ref-int8 neon
case_ base_refuses refuse cortex-a72 neon-int8
case_ dotprod check neoverse-n1 neon neon-int8
case_ max check max neon-int8
[ $failures = 0 ]
