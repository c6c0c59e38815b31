#!/bin/sh
# Builds the kernels, their checker and that of parity for aarch64, with gcc and with clang, and runs gcc's under qemu-user as each
# kind of CPU that the kernels tell apart. Prints a line for each in the style of cmocka; what fails is printed whole.
#
# Needs cmake, ninja, gcc-aarch64-linux-gnu, libc6-dev-arm64-cross, qemu-user, clang and python3-numpy; about half an hour of one core.
# Usage: aarch64.sh [build dir [jobs]]
set -u
root=$(cd "$(dirname "$0")/../.." && pwd)
out=${1:-$root/build/aarch64}
jobs=${2:-2}
python=python3
[ ! -x /usr/bin/python3 ] || python=/usr/bin/python3 # Debian's, which sees python3-numpy
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
    grep -q "has no " "$out/refused"
}

# golden CPU ISA MODEL: parity with transformers, see tests/golden/README.md
golden() {
    rm -rf "$out/golden/$3"
    "$python" "$root/tools/golden_model.py" "$3" "$out/golden/$3" &&
        qemu-aarch64 -cpu "$1" "$out/aarch64-linux-gnu-gcc/check_golden" "$out/golden/$3" "$root/tests/golden/$3/golden.bin" "$2"
}

mkdir -p "$out/golden"
case_ build_gcc build aarch64-linux-gnu-gcc
case_ build_clang build clang -DCMAKE_C_COMPILER_TARGET=aarch64-linux-gnu
case_ base check cortex-a72 ref ref-int8 neon
case_ base_lacks_dotprod refuse cortex-a72 neondot
case_ dotprod check neoverse-n1 neondot neondot-int8
case_ dotprod_lacks_bfmmla refuse neoverse-n1 neonmm
case_ dotprod_golden golden neoverse-n1 neondot vl-mlx4
case_ dotprod_golden_int8 golden neoverse-n1 neondot-int8 vl-mlx4
case_ max check max neondot-int8 neonmm
case_ max_golden_q8 golden max neonmm vl-mlx8
case_ max_golden_bf16 golden max neonmm qwen2-bf16
[ $failures = 0 ]
