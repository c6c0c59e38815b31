#!/bin/sh
# Train, export, compare with transformers. Needs a GPU, PyTorch, transformers, Pillow and the fonts.
#
#   sh tools/tiny/run_all.sh MINUTES DIR OUT [STOP_AFTER [MODEL_DIR]]
#
# MINUTES is the training time of the whole run, STOP_AFTER that of this call: call again with the same DIR to go on.
# DIR keeps the state and the compiled kernels, OUT gets logs and the model (model.tar.00 ...; unpack with
# `cat model.tar.* | tar -x -C FOLDER`), written every three minutes, so a call that is cut off leaves one.
# MODEL_DIR is an exported model to start from when DIR holds no state. TRAIN_ARGS are further options of train.py.
set -u
[ $# -ge 3 ] || { echo "usage: $0 MINUTES DIR OUT [STOP_AFTER [MODEL_DIR]]" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
minutes=$1 dir=$2 out=$3 stop=${4:-1000} init=${5:-}
mkdir -p "$dir" "$out"
export PYTHONUNBUFFERED=1 TORCHINDUCTOR_CACHE_DIR="$dir/kernels" TORCHINDUCTOR_FX_GRAPH_CACHE=1
set -- --minutes "$minutes" --dir "$dir" --out "$out" --stop-after "$stop"
[ -z "$init" ] || set -- "$@" --init "$init"

# SIGTERM goes on to the training, which then saves and exports.
python3 "$here/train.py" "$@" ${TRAIN_ARGS:-} >> "$out/train.log" 2>&1 &
train=$!
trap 'kill -TERM $train 2>/dev/null' TERM INT
status=1
while :; do
    wait $train
    status=$?
    kill -0 $train 2>/dev/null || break
done
tail -n 4 "$out/train.log"
[ $status = 0 ] || { echo "training ended with $status" >&2; exit $status; }
tail -n 1 "$out/train.log" | grep -q '^done' || exit 0  # paused: the comparison is for the finished model

model="$dir/model"
mkdir -p "$model" && cat "$out"/model.tar.* | tar -x -C "$model" || exit 1
{ timeout 120 python3 "$here/check.py"; timeout 180 python3 "$here/check.py" "$model"; } > "$out/check.log" 2>&1
grep -E '^check (PASS|FAIL)|^answers right' "$out/check.log"
grep -q '^check PASS' "$out/check.log"
