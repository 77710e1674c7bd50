#!/usr/bin/env bash
# All benchmarks that need a GPU, in one command that ends in under nine minutes on one GPU like an H200 with 16 cores:
#
#     tests/benchmarks/gpu.sh [--tiny] [FOLDER]
#
# Needs this repository, PyTorch >= 2.11, torchvision and PyYAML; no network, no data. Parts that need tensorboard or pytest
# are skipped with a message if these are not installed. JSON lines are appended to files in FOLDER; default:
# tests/benchmarks/results. --tiny: the smallest possible size, also on a CPU; tests that all parts run, measures nothing.
# Exits 1 if a part failed or exceeded its time limit.
set -uo pipefail
cd "$(dirname "$0")/../.."
repo=$PWD; benchmarks=tests/benchmarks; python=${PYTHON:-python3}; tiny=""
[ "${1:-}" = --tiny ] && { tiny=yes; shift; }
out=${1:-$benchmarks/results}
mkdir -p "$out" || exit 1
export PYTHONPATH="$repo${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
failed=""; began=$SECONDS

has() { "$python" -c "import $1" 2>/dev/null; }

part() {  # SECONDS NAME COMMAND ...: runs a command with a time limit; a failure does not stop the other parts
    local limit=$1 name=$2 at=$SECONDS status; shift 2
    echo "== $name"
    timeout --kill-after 10 "$limit" "$@"; status=$?
    [ $status -eq 0 ] || failed+=" $name ($([ $status -eq 124 ] && echo "time limit of $limit s" || echo "status $status"))"
    echo "== $name: $((SECONDS - at)) s"
}

if [ -z "$tiny" ]; then
    "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' \
    || { echo "no GPU that PyTorch can use; --tiny needs none"; exit 1; }
    step=(); checks=(); loader=(--images 100 --steps 40); inference=(--cases resnet50_fpn_800 --rounds 15); scaling=(--rounds 1 --steps 40)
else
    step=(--cases tiny --rounds 1); checks=(--case tiny --batch 2)
    loader=(--images 8 --rounds 1 --batch 4 --steps 8 --workers 2 --step-ms 1)
    inference=(--cases tiny --batches 1 --rounds 1)
    scaling=(--rounds 1 --steps 8 --ranks 8 --images 2000 --val-images 100 --detections 1000 --processes 1
             --size model.backbone=resnet18_fpn model.fpn_channels=16 model.box_head_dim=32 augment.min_size=[64]
             augment.max_size=128 batch.micro_batch_size=1)
fi

"$python" -c 'import torch, torchvision; n = torch.cuda.device_count()
print("torch", torch.__version__, "torchvision", torchvision.__version__, [torch.cuda.get_device_name(i) for i in range(n)] or "no GPU")'
part 55 device_checks "$python" $benchmarks/device_checks.py "${checks[@]}" --out "$out/device_checks.jsonl"
part 250 train_step "$python" $benchmarks/train_step.py "${step[@]}" --out "$out/train_step.jsonl"
part 60 loader "$python" $benchmarks/loader.py "${loader[@]}" --out "$out/loader.jsonl"
part 50 inference "$python" $benchmarks/inference.py "${inference[@]}" --out "$out/inference.jsonl"
has torch.utils.tensorboard || { echo "no tensorboard: weak scaling is skipped"; scaling+=(--rounds 0); }
part 60 scaling "$python" $benchmarks/scaling.py "${scaling[@]}" --steps-of "$out/train_step.jsonl" --out "$out/scaling.jsonl"
if [ -n "$tiny" ]; then echo "tests that need a GPU are skipped"
elif has pytest; then
    part 40 tests "$python" -m pytest -q tests/detector/model/test_precision.py \
        tests/detector/training/test_nan_guard.py tests/detector/data/test_packed_batch.py
else echo "no pytest: tests that need a GPU are skipped"
fi
echo "== all: $((SECONDS - began)) s; JSON lines are in $out"
[ -z "$failed" ] || { echo "failed:$failed"; exit 1; }
