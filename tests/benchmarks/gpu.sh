#!/usr/bin/env bash
# All benchmarks that need a GPU, in one command that ends in under eight minutes on one GPU like an H100 with 16 cores:
#
#     tests/benchmarks/gpu.sh [--tiny] [FOLDER]
#
# Begins with what shows correctness, then measures what matters most. Each part appends its JSON lines to files in FOLDER
# (default: tests/benchmarks/results) as soon as they are measured, and renews FOLDER/summary.txt, so that a machine that is
# taken away early has not run in vain. Needs this repository, PyTorch >= 2.11, torchvision and PyYAML; no network, no data.
# Parts that need tensorboard or pytest are skipped with a message if these are not installed. --tiny: a rehearsal, as small
# as possible, also on a CPU; shows that all parts run, measures nothing. Exits 1 if a part failed or exceeded its time limit.
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
    [ -z "$tiny" ] || limit=$((10 * limit))  # a rehearsal may be on a slow machine
    echo "== $name"
    timeout --kill-after 5 "$limit" "$@"; status=$?
    [ $status -eq 0 ] || failed+=" $name ($([ $status -eq 124 ] && echo "time limit of $limit s" || echo "status $status"))"
    echo "== $name: $((SECONDS - at)) s"
    "$python" $benchmarks/gpu_summary.py "$out" > "$out/summary.txt" || failed+=" summary"
}

if [ -z "$tiny" ]; then
    "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' \
    || { echo "no GPU that PyTorch can use; --tiny needs none"; exit 1; }
    checks=(); eager=(--cases resnet50_fpn_800 --variants bf16 "bf16, torchvision's heads")
    compiled=(--cases resnet50_fpn_800 --rounds 5 --variants bf16 "bf16, torchvision's heads" "bf16, compiled"
              "bf16, torchvision's heads, compiled")
    hot_path=(--case resnet50_fpn_800); others=(--cases vgg16_600 resnet101_c4_600 --rounds 3 --variants bf16)
    loader=(--images 100 --steps 40); inference=(--cases resnet50_fpn_800 --rounds 15); scaling=(--rounds 1 --steps 40)
else
    checks=(--case tiny --batch 2); eager=(--cases tiny --rounds 1); compiled=(--cases tiny --rounds 1 --variants bf16)
    hot_path=(--case tiny --batch 2 --rounds 1); loader=(--images 8 --rounds 1 --batch 4 --steps 8 --workers 2 --step-ms 1)
    inference=(--cases tiny --batches 1 --rounds 1)
    scaling=(--rounds 1 --steps 8 --ranks 8 --images 2000 --val-images 100 --detections 1000 --processes 1
             --size model.backbone=resnet18_fpn model.fpn_channels=16 model.box_head_dim=32 augment.min_size=[64]
             augment.max_size=128 batch.micro_batch_size=1)
fi

"$python" -c 'import torch, torchvision; n = torch.cuda.device_count()
print("torch", torch.__version__, "torchvision", torchvision.__version__, [torch.cuda.get_device_name(i) for i in range(n)] or "no GPU")'
# Time limits, and in brackets what an H100 is estimated to need: imports of 5 s each, then steps of 0.1 to 0.5 s.
part 45 device_checks "$python" $benchmarks/device_checks.py "${checks[@]}" --out "$out/device_checks.jsonl"       # (25 s)
if [ -n "$tiny" ]; then echo "tests that need a GPU are skipped"
elif has pytest; then
    part 30 tests "$python" -m pytest -q tests/detector/model/test_precision.py tests/detector/training/test_step.py \
        tests/detector/training/test_nan_guard.py tests/detector/data/test_packed_batch.py                         # (20 s)
else echo "no pytest: tests that need a GPU are skipped"
fi
part 55 train_step "$python" $benchmarks/train_step.py "${eager[@]}" --out "$out/train_step.jsonl"                 # (30 s)
# Three lines: without compile; with one compiled variant, too; with both.
part 130 compiled "$python" $benchmarks/train_step.py "${compiled[@]}" --out "$out/train_step.jsonl"               # (100 s)
part 40 hot_path "$python" $benchmarks/hot_path.py "${hot_path[@]}" --out "$out/hot_path.jsonl"                    # (25 s)
part 35 inference "$python" $benchmarks/inference.py "${inference[@]}" --out "$out/inference.jsonl"                # (20 s)
if [ -z "$tiny" ]; then
    part 45 other_backbones "$python" $benchmarks/train_step.py "${others[@]}" --out "$out/train_step.jsonl"       # (30 s)
fi
part 35 loader "$python" $benchmarks/loader.py "${loader[@]}" --out "$out/loader.jsonl"                            # (25 s)
has torch.utils.tensorboard || { echo "no tensorboard: weak scaling is skipped"; scaling+=(--rounds 0); }
part 35 scaling "$python" $benchmarks/scaling.py "${scaling[@]}" --steps-of "$out/train_step.jsonl" --out "$out/scaling.jsonl"  # (30 s)
echo "== summary, also in $out/summary.txt"
cat "$out/summary.txt"
echo "== all: $((SECONDS - began)) s; JSON lines are in $out"
[ -z "$failed" ] || { echo "failed:$failed"; exit 1; }
