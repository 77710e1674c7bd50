"""Scaling to more processes: measured speed, the CPU work of every rank, and an estimate for GPUs.

    python tests/benchmarks/scaling.py [--processes 1 2] [--rounds 3] [--ranks 8 64 512 4096] [--step-s S --step-images N]
    python tests/benchmarks/scaling.py --readme     # writes the tables of the last JSON line into tests/benchmarks/README.md

1. Weak scaling: the same training, as `python -m detector train` runs it, on 1 and 2 processes with one thread each, or on
   1, 2, 4, ... GPUs; each process takes the same number of images. Images/s of n processes over n times those of 1.
2. Work that every rank does for all ranks, at the size of COCO, simulated on one core: planning the batches of an epoch
   (detector/data/samplers.py), per step; and gathering and merging the predictions of all ranks in an evaluation
   (detector/evaluation/evaluate.py). Without the network.
3. An estimate from the measured step of one GPU (--step-s with --step-images; else the last bf16 step of this package that
   train_step.py measured on a GPU for resnet50_fpn_800): see `estimate`.

Prints tables in markdown, and appends a JSON line to tests/benchmarks/results/scaling.jsonl.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from measuring import (
    README,
    RESULTS,
    append_result,
    draw_jpegs,
    format_spread,
    spread,
    write_annotations,
    write_between_markers,
)

from detector.config.aliases import OLD_NAMES
from detector.data.samplers import TrainBatchSampler, micro_batches, plan_eval_batches, steps_per_epoch
from detector.evaluation.evaluate import RankPredictions, merge
from detector.seeding import numpy_random_state
from detector.structures import Detections
from launcher.rank_env import free_port, local_environment

REPO = Path(__file__).resolve().parent.parent.parent
IMAGES_PER_RANK = 2          # in a step of the simulation
GPUS_PER_NODE = 8
NODE_BANDWIDTH = 450e9       # bytes/s each way inside a node: NVLink 4
NETWORK_BANDWIDTH = 50e9     # bytes/s each way between nodes: a 400 Gbit/s port for each GPU
BACKWARD_FRACTION = 2 / 3    # of a step: two of the three products of each convolution
SMALL = ["model.backbone=resnet18_fpn", "augment.min_size=[320]", "augment.max_size=640", "batch.micro_batch_size=2"]
LARGE = ["model.backbone=resnet50_fpn", "augment.min_size=[800]", "augment.max_size=1333", "batch.micro_batch_size=8",
         "run.precision=bf16"]


def estimate(step_s: float, images: int, gradient_bytes: float, gpus: int,
             backward_fraction: float = BACKWARD_FRACTION) -> float:
    """Returns the estimated images/s of n GPUs, each with `images` per step; one GPU alone needs `step_s` for a step.

    A ring all-reduce sends and receives 2 (n - 1) / n times the gradient over each link (Patarasuk and Yuan 2009). The
    slowest link counts: the one between nodes, if there are several. The all-reduce overlaps the backward pass; the rest
    of it is added to the step. Latency and late ranks are not included.
    """
    bandwidth = NODE_BANDWIDTH if gpus <= GPUS_PER_NODE else NETWORK_BANDWIDTH
    reduce_s = 2 * (gpus - 1) / gpus * gradient_bytes / bandwidth
    return gpus * images / (step_s + max(0.0, reduce_s - backward_fraction * step_s))


def gradient_bytes() -> int:
    """Returns the bytes of the fp32 gradient of ResNet-50 FPN with the options of coco/resnet50_fpn."""
    from detector.config.load import load_config
    from detector.model.faster_rcnn import build_model
    config = load_config("coco/resnet50_fpn", ["data.root=none"])
    return sum(4 * weight.numel() for weight in build_model(config.model, config.evaluate, 80).parameters()
               if weight.requires_grad)


def measured_step(results: Path) -> tuple[float, int]:
    """Returns the seconds and the images of the last step that was measured on a GPU; zeros if there is none."""
    lines = [json.loads(line) for line in results.read_text().splitlines()] if results.is_file() else []
    for line in reversed(lines):
        if line["gpus"] and line["case"].startswith("resnet50_fpn_800") and line.get("seconds", {}).get("bf16"):
            return statistics.median(line["seconds"]["bf16"]), line["batch"]
    return 0.0, 0


def train_speed(processes: int, folder: Path, steps: int, size: list[str], device: str, name: str) -> float:
    """Returns the images/s of a training on some processes, from its metrics.jsonl without the first line."""
    workers = max(1, min(8, len(os.sched_getaffinity(0)) // processes - 1)) if device == "cuda" else 1
    args = ["train", str(folder / "empty.yaml"), "model.weights=", "model.norm=trained", "model.frozen_stages=0", "data.val=[]",
            f"data.root={folder}", "data.train=[train]", f"data.cache={folder / 'cache'}", "batch.size=0", "optim.lr=1e-5",
            f"run.folder={folder / 'runs'}", f"run.name={name}", f"run.device={device}", f"run.num_workers={workers}",
            f"schedule.steps={steps}", f"run.log_every_steps={max(1, steps // 4)}", *size]
    port = free_port()
    threads = {"OMP_NUM_THREADS": "1"} if device == "cpu" else {}
    ranks = [subprocess.Popen([sys.executable, "-m", "detector", *args], cwd=REPO, stdout=subprocess.DEVNULL,
                              env={**local_environment(rank, processes, port), **threads, "PYTHONPATH": str(REPO)})
             for rank in range(processes)]
    if any([rank.wait() for rank in ranks]):
        sys.exit(f"a training on {processes} processes failed")
    lines = [json.loads(line) for line in (folder / "runs" / name / "metrics.jsonl").read_text().splitlines()]
    logged = [(line["step"], line["images_per_s"]) for line in lines if line["kind"] == "train" and line["step"] > 1]
    seconds = sum((step - before) / images_per_s for (before, _), (step, images_per_s) in zip(logged, logged[1:]))
    return (logged[-1][0] - logged[0][0]) / seconds


def weak_scaling(counts: list[int], rounds: int, steps: int, size: list[str], device: str) -> dict[int, list[float]]:
    """Returns the images/s of each round by the number of processes; every round runs each number once."""
    images_per_s: dict[int, list[float]] = {count: [] for count in counts if rounds}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_annotations(folder / "annotations" / "instances_train.json", 64, 450, 20, 480, 640)
        for path in draw_jpegs(folder / "train", 64, 480, 640):
            path.rename(path.with_name(f"{int(path.stem):012d}.jpg"))
        (folder / "empty.yaml").write_text("")
        for number in range(rounds):
            for count, speeds in images_per_s.items():
                speeds.append(train_speed(count, folder, steps, size, device, f"{count}-{number}"))
    return images_per_s


def photo_sizes(count: int) -> np.ndarray:
    """Returns int32 [count, 2], height and width of photographs, most of them landscape."""
    rng = numpy_random_state(0)
    sizes = np.where(rng.rand(count, 1) < 0.7, [480, 640], [640, 480])
    return (sizes * (1 - 0.4 * rng.rand(count, 2))).astype(np.int32)


def rank_predictions(images: int, detections: int, world_size: int) -> list[RankPredictions]:
    """Returns drawn predictions of each rank of an evaluation; rank r has the batches r, r + world_size, ..."""
    rng, plan = numpy_random_state(0), plan_eval_batches(photo_sizes(images), IMAGES_PER_RANK)
    parts = []
    for rank in range(world_size):
        batches = plan[rank::world_size]
        indices = np.concatenate([np.zeros(0, np.int64), *batches])
        image_ids = np.repeat(indices, detections // images)
        boxes = rng.rand(len(image_ids), 4).astype(np.float32)
        names = ("loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg")
        losses = [{"batch": rank + number * world_size, "images": len(batch), "losses": dict.fromkeys(names, 1.0)}
                  for number, batch in enumerate(batches)]
        parts.append(RankPredictions(Detections(image_ids, boxes, boxes[:, 0], np.ones(len(image_ids), np.int32)), losses,
                                     indices, []))
    return parts


def gather_arrays(column: list[np.ndarray]) -> list[np.ndarray]:
    """Does what collectives.all_gather_arrays does with one column of all ranks, without the network."""
    longest = max(1, max(part.nbytes for part in column))
    gathered = []
    for part in column:
        padded = torch.empty(longest, dtype=torch.uint8)
        padded[:part.nbytes] = torch.from_numpy(np.ascontiguousarray(part).reshape(-1).view(np.uint8))
        gathered.append(padded[:part.nbytes].numpy().view(part.dtype).reshape(-1, *part.shape[1:]))
    return gathered


def gather_losses(parts: list[RankPredictions]) -> list[dict]:
    """Does what evaluate.gather does with the losses of all ranks: JSON texts, sent as bytes."""
    column = [np.frombuffer("\0".join(json.dumps(batch) for batch in part.losses).encode(), np.uint8) for part in parts]
    texts = b"\0".join(bytes(part) for part in gather_arrays(column)).decode().split("\0")
    return [json.loads(text) for text in texts if text]


def rank_work(world_size: int, images: int, val_images: int, detections: int) -> dict:
    """Returns the work of one of many ranks: milliseconds per step, seconds per evaluation."""
    sizes, batch = photo_sizes(images), IMAGES_PER_RANK * world_size
    steps = steps_per_epoch(sizes, batch)
    columns = micro_batches(batch, IMAGES_PER_RANK, world_size - 1, world_size)
    sampler = TrainBatchSampler(0, sizes, batch, columns, 0, steps, steps)
    started_at = time.perf_counter()
    assert sum(1 for _ in sampler) == steps
    planned_s = time.perf_counter() - started_at
    parts = rank_predictions(val_images, detections, world_size)
    started_at = time.perf_counter()
    arrays = zip(*((*vars(part.detections).values(), part.indices) for part in parts))
    gathered = [gather_arrays(list(column)) for column in arrays]
    losses = gather_losses(parts)
    gathered_s = time.perf_counter() - started_at
    started_at = time.perf_counter()
    merged, merged_losses, indices = merge([RankPredictions(Detections(*four), [], indices, [])
                                            for *four, indices in zip(*gathered)], losses)
    merged_s = time.perf_counter() - started_at
    assert len(indices) == val_images and len(merged) == sum(len(part.detections) for part in parts)
    assert sum(batch["images"] for batch in merged_losses) == val_images
    return {"ranks": world_size, "batch": batch, "steps": steps, "plan_ms": 1000 * planned_s / steps,
            "gather_s": gathered_s, "merge_s": merged_s}


def tables(line: dict) -> str:
    """Returns the markdown tables of one JSON line; options are written with their names of today."""
    unit = "GPUs" if line["device"] == "cuda" else "CPU processes of one thread"
    options = [f"{OLD_NAMES.get(path, path)}={value}" for path, _, value in (each.partition("=") for each in line["size"])]
    rows = [f"A training of `{' '.join(options)}`:", "", f"| {unit} | images/s | of n times one |", "|---|---|---|"]
    if not line["weak"]:
        rows.append("| 1, 2, ... | not measured | |")
    for count, speeds in line["weak"].items():
        efficiency = spread(speeds)["median"] / (int(count) * spread(line["weak"]["1"])["median"])
        rows.append(f"| {count} | {format_spread(spread(speeds))} | {efficiency:.0%} |")
    rows += ["", "| ranks | images a step | steps an epoch | planning, ms a step | gathering, s an evaluation "
             "| merging, s an evaluation |", "|---|---|---|---|---|---|"]
    rows += [f"| {work['ranks']} | {work['batch']} | {work['steps']} | {work['plan_ms']:.2f} | {work['gather_s']:.2f} | "
             f"{work['merge_s']:.2f} |" for work in line["cost"]]
    rows += ["", "| GPUs, estimated | images/s |", "|---|---|"]
    rows += [f"| {gpus} | {f'{speed:.0f}' if speed else 'not measured'} |" for gpus, speed in line["estimate"].items()]
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    gpus = torch.cuda.device_count()
    powers_of_two = [2**i for i in range(10) if 2**i <= gpus]
    parser.add_argument("--processes", type=int, nargs="+", default=powers_of_two or [1, 2], help="or GPUs; 1 comes first")
    parser.add_argument("--ranks", type=int, nargs="+", default=[8, 64, 512, 4096])
    for name, default in (("rounds", 3), ("steps", 16), ("images", 118_287), ("val-images", 5000), ("detections", 493_000),
                          ("step-images", 16)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--step-s", type=float, default=0.0, help="seconds of a step of ResNet-50 FPN on one GPU; 0: from --steps-of")
    parser.add_argument("--steps-of", default=str(RESULTS / "train_step.jsonl"), help="file with the lines of train_step.py")
    parser.add_argument("--size", nargs="+", default=LARGE if gpus else SMALL, help="options of the training")
    parser.add_argument("--readme", action="store_true", help="only write the tables of the last line into README.md")
    parser.add_argument("--out", default="", help="file to which the JSON line is appended")
    args = parser.parse_args()
    if args.readme:
        line = json.loads(Path(args.out or RESULTS / "scaling.jsonl").read_text().splitlines()[-1])
        return write_between_markers(README, "scaling", tables(line))
    device = "cuda" if gpus else "cpu"
    if not args.step_s:
        args.step_s, args.step_images = measured_step(Path(args.steps_of))
    weak = weak_scaling(args.processes, args.rounds, args.steps, args.size, device)
    line = {"device": device, "size": args.size, "images": args.images, "detections": args.detections,
            "weak": {str(count): speeds for count, speeds in weak.items()},
            "cost": [rank_work(ranks, args.images, args.val_images, args.detections) for ranks in args.ranks],
            "step_s": args.step_s, "gradient_bytes": gradient_bytes()}
    line["estimate"] = {str(n): args.step_s and estimate(args.step_s, args.step_images, line["gradient_bytes"], n)
                        for n in (GPUS_PER_NODE, 64, 512)}
    print(tables(line))
    append_result("scaling", line, args.out)


if __name__ == "__main__":
    main()
