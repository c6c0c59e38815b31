#!/bin/sh
# Makes build/venv with the Python clients of tests/requirements.txt, once: test_venv.sh [PYTHON]
#
# Prints the path of its interpreter. Exit code 1, and a sentence on stderr, when it could not be made (no network,
# no python3-venv): the tests that need it are then skipped.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
python=${1:-python3}
venv=$root/build/venv
wanted=$root/tests/requirements.txt
stamp=$venv/installed.txt

mkdir -p "$root/build"
log=$(mktemp)
exec 9>"$root/build/venv.lock"
flock 9 # several test programs may ask at once
trap 'rm -f "$log"' EXIT

if ! cmp -s "$wanted" "$stamp" 2>/dev/null; then
    rm -rf "$venv"
    if ! "$python" -m venv "$venv" >"$log" 2>&1; then
        tail -n 3 "$log" >&2
        echo "test_venv.sh: $python could not make a virtual environment (Debian: python3-venv)" >&2
        rm -rf "$venv"
        exit 1
    fi
    if ! "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --timeout 20 --retries 1 \
        --only-binary :all: -r "$wanted" >"$log" 2>&1 </dev/null; then
        tail -n 3 "$log" >&2
        echo "test_venv.sh: pip could not install tests/requirements.txt" >&2
        rm -rf "$venv"
        exit 1
    fi
    cp "$wanted" "$stamp"
fi
echo "$venv/bin/python"
