"""What more processes bring, and what they cost.

    python tests/benchmarks/scaling.py [--processes 1 2] [--rounds 3] [--ranks 8 64 512 4096] [--step-s S --step-images N]
    python tests/benchmarks/scaling.py --readme     # puts the tables of the last JSON line into README.md

1. Weak scaling: the same training, as `python -m detector train` runs it, on 1 and 2 processes with one thread each, or on
   1, 2, 4, ... GPUs where there are some; each process takes as many images. Images/s of n over n times those of 1.
2. What every rank does for all of them, at the size of COCO, simulated on one core for many ranks: planning an epoch
   and its keys (data/samplers.py, data/loader.py: TrainKeys), shared out over the steps; and in an evaluation unpacking and merging all
   ranks' detections (evaluate.py: merge). The network is not in it.
3. On paper, from one GPU's measured step (--step-s with --step-images; else the last of ours in bf16 that train_step.py
   measured on a GPU for resnet50_fpn_800): see `estimate`.

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
from measuring import README, RESULTS, annotation_file, append, into_readme, photographs, spread, told

from detector.data.samplers import TrainBatchSampler, micro_batches, plan_eval_batches, steps_per_epoch
from detector.evaluation.evaluate import RankPredictions, merge
from detector.seeding import numpy_random_state
from detector.structures import Detections
from launcher.rank_env import free_port, local_environment

REPO = Path(__file__).resolve().parent.parent.parent
PER_PROCESS = 2                            # images, of the simulation
NODE, NODE_BANDWIDTH, BANDWIDTH = 8, 450e9, 50e9  # GPUs; bytes/s each way: NVLink 4, and a 400 Gbit/s port for each GPU
BACKWARD_SHARE = 2 / 3                     # of a step: two of the three products of each convolution
SMALL = ["model.backbone=resnet18_fpn", "augment.min_size=[320]", "augment.max_size=640", "batch.micro_batch_size=2"]
LARGE = ["model.backbone=resnet50_fpn", "augment.min_size=[800]", "augment.max_size=1333", "batch.micro_batch_size=8",
         "run.precision=bf16"]


def estimate(step_s: float, images: int, gradient_bytes: float, gpus: int, backward_share: float = BACKWARD_SHARE) -> float:
    """Images/s of n GPUs, each of which takes `images` in a step that alone lasts `step_s`.

    A ring all-reduce sends and receives 2 (n - 1) / n times the gradient over each link (Patarasuk and Yuan 2009), the
    slowest of which counts: between nodes, where there is more than one. It goes on beside the backward pass, and what is
    longer than that is added to the step. Nothing is counted for latency, or for a rank that is late.
    """
    bandwidth = NODE_BANDWIDTH if gpus <= NODE else BANDWIDTH
    reduce_s = 2 * (gpus - 1) / gpus * gradient_bytes / bandwidth
    return gpus * images / (step_s + max(0.0, reduce_s - backward_share * step_s))


def gradient_bytes() -> int:
    """Of ResNet-50 FPN as COCO's recipe trains it, in fp32."""
    from detector.config.load import load_config
    from detector.model.faster_rcnn import build_model
    config = load_config("coco/resnet50_fpn", ["data.root=none"])
    return sum(4 * weight.numel() for weight in build_model(config.model, config.evaluate, 80).parameters()
               if weight.requires_grad)


def measured_step(results: Path) -> tuple[float, int]:
    """Seconds of a step and its images; zeros where no GPU was measured."""
    lines = [json.loads(line) for line in results.read_text().splitlines()] if results.is_file() else []
    for line in reversed(lines):
        if line["gpus"] and line["case"].startswith("resnet50_fpn_800") and line.get("seconds", {}).get("bf16"):
            return statistics.median(line["seconds"]["bf16"]), line["batch"]
    return 0.0, 0


def weak(processes: int, folder: Path, steps: int, size: list[str], device: str, name: str) -> float:
    """Images/s of a training on so many processes: its record, without the first line."""
    workers = max(1, min(8, len(os.sched_getaffinity(0)) // processes - 1)) if device == "cuda" else 1
    words = ["train", str(folder / "empty.yaml"), "model.weights=", "model.norm=trained", "model.frozen_stages=0", "data.val=[]",
             f"data.root={folder}", "data.train=[train]", f"data.cache={folder / 'cache'}", "batch.size=0", "optim.lr=1e-5",
             f"run.folder={folder / 'runs'}", f"run.name={name}", f"run.device={device}", f"run.num_workers={workers}",
             f"schedule.steps={steps}", f"run.log_every_steps={max(1, steps // 4)}", *size]
    port = free_port()
    threads = {"OMP_NUM_THREADS": "1"} if device == "cpu" else {}
    running = [subprocess.Popen([sys.executable, "-m", "detector", *words], cwd=REPO, stdout=subprocess.DEVNULL,
                                env={**local_environment(rank, processes, port), **threads, "PYTHONPATH": str(REPO)})
               for rank in range(processes)]
    if any([process.wait() for process in running]):
        sys.exit(f"a training on {processes} processes failed")
    lines = [json.loads(line) for line in (folder / "runs" / name / "metrics.jsonl").read_text().splitlines()]
    logged = [(line["step"], line["images_per_s"]) for line in lines if line["kind"] == "train"]
    seconds = sum((step - before) / pace for (before, _), (step, pace) in zip(logged, logged[1:]))
    return (logged[-1][0] - logged[0][0]) / seconds


def weak_scaling(counts: list[int], rounds: int, steps: int, size: list[str], device: str) -> dict[int, list[float]]:
    """Images/s of each round, by the number of processes, which take turns."""
    found: dict[int, list[float]] = {count: [] for count in counts if rounds}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        annotation_file(folder / "annotations" / "instances_train.json", 64, 450, 20, 480, 640)
        for path in photographs(folder / "train", 64, 480, 640):
            path.rename(path.with_name(f"{int(path.stem):012d}.jpg"))
        (folder / "empty.yaml").write_text("")
        for turn in range(rounds):
            for count in found:
                found[count].append(weak(count, folder, steps, size, device, f"{count}-{turn}"))
    return found


def photo_sizes(count: int) -> np.ndarray:
    chance = numpy_random_state(0)
    sizes = np.where(chance.rand(count, 1) < 0.7, [480, 640], [640, 480])
    return (sizes * (1 - 0.4 * chance.rand(count, 2))).astype(np.int32)


def shares_of(images: int, detections: int, world: int) -> list[RankPredictions]:
    """What each rank of an evaluation holds: the batches r, r + world, ..."""
    chance, plan = numpy_random_state(0), plan_eval_batches(photo_sizes(images), PER_PROCESS)
    per_image, found = detections // images, []
    for rank in range(world):
        mine = plan[rank::world]
        seen = np.concatenate([np.zeros(0, np.int64), *mine])
        ids = np.repeat(seen, per_image)
        boxes = chance.rand(len(ids), 4).astype(np.float32)
        found.append(RankPredictions(Detections(ids, boxes, boxes[:, 0], np.ones(len(ids), np.int32)),
                           np.array([[rank + n * world, len(b), 1, 1, 1, 1] for n, b in enumerate(mine)], float).reshape(-1, 6),
                           seen, []))
    return found


def arrive(column: list[np.ndarray]) -> list[np.ndarray]:
    """What distributed.gather_everywhere does with one column of all ranks, where the network has left it."""
    longest = max(1, max(part.nbytes for part in column))
    found = []
    for part in column:
        padded = torch.empty(longest, dtype=torch.uint8)
        padded[:part.nbytes] = torch.from_numpy(np.ascontiguousarray(part).reshape(-1).view(np.uint8))
        found.append(padded[:part.nbytes].numpy().view(part.dtype).reshape(-1, *part.shape[1:]))
    return found


def cost(world: int, images: int, val_images: int, detections: int) -> dict:
    """Of one rank among so many: milliseconds of each step, seconds of each evaluation."""
    sizes, batch = photo_sizes(images), PER_PROCESS * world
    steps = steps_per_epoch(sizes, batch)
    keys = TrainBatchSampler(0, sizes, batch, micro_batches(batch, PER_PROCESS, world - 1, world), 0, steps, steps)
    started_at = time.perf_counter()
    assert sum(1 for _ in keys) == steps
    planned_s = time.perf_counter() - started_at
    shares = shares_of(val_images, detections, world)
    started_at = time.perf_counter()
    columns = zip(*((*vars(share.detections).values(), share.losses, share.seen) for share in shares))
    arrived = [arrive(list(column)) for column in columns]
    gathered_s = time.perf_counter() - started_at
    started_at = time.perf_counter()
    merged, _, seen = merge([RankPredictions(Detections(*four), losses, seen, []) for *four, losses, seen in zip(*arrived)])
    merged_s = time.perf_counter() - started_at
    assert len(seen) == val_images and len(merged) == sum(len(share.detections) for share in shares)
    return {"ranks": world, "batch": batch, "steps": steps, "plan_ms": 1000 * planned_s / steps,
            "gather_s": gathered_s, "merge_s": merged_s}


def tables(line: dict) -> str:
    """Markdown, from one JSON line."""
    device = "GPUs" if line["device"] == "cuda" else "CPU processes of one thread"
    rows = ["A training of `" + " ".join(line["size"]) + "`:", "", f"| {device} | images/s | of n times one |", "|---|---|---|"]
    one = spread(line["weak"]["1"])["median"] if line["weak"] else 0
    rows += [] if line["weak"] else ["| 1, 2, ... | not measured | |"]
    for count, paces in line["weak"].items():
        rows.append(f"| {count} | {told(spread(paces))} | {spread(paces)['median'] / (int(count) * one):.0%} |")
    rows += ["", "| ranks | images a step | steps an epoch | planning, ms a step | gathering, s an evaluation "
             "| merging, s an evaluation |", "|---|---|---|---|---|---|"]
    rows += [f"| {c['ranks']} | {c['batch']} | {c['steps']} | {c['plan_ms']:.2f} | {c['gather_s']:.2f} | "
             f"{c['merge_s']:.2f} |" for c in line["cost"]]
    rows += ["", "| GPUs, on paper | images/s |", "|---|---|"]
    rows += [f"| {gpus} | {f'{pace:.0f}' if pace else 'not measured'} |" for gpus, pace in line["estimate"].items()]
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    gpus = torch.cuda.device_count()
    doubled = [2**i for i in range(10) if 2**i <= gpus]
    parser.add_argument("--processes", type=int, nargs="+", default=doubled or [1, 2], help="or GPUs; 1 comes first")
    parser.add_argument("--ranks", type=int, nargs="+", default=[8, 64, 512, 4096])
    for name, default in (("rounds", 3), ("steps", 16), ("images", 118_287), ("val-images", 5000), ("detections", 493_000),
                          ("step-images", 16)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--step-s", type=float, default=0.0, help="of one GPU: ResNet-50 FPN; 0: as in --steps-of")
    parser.add_argument("--steps-of", default=str(RESULTS / "train_step.jsonl"), help="where train_step.py's lines are")
    parser.add_argument("--size", nargs="+", default=LARGE if gpus else SMALL, help="options of the training")
    parser.add_argument("--readme", action="store_true", help="only put the last line's tables into README.md")
    parser.add_argument("--out", default="", help="where the JSON line is appended")
    said = parser.parse_args()
    if said.readme:
        line = json.loads(Path(said.out or RESULTS / "scaling.jsonl").read_text().splitlines()[-1])
        return into_readme(README, "scaling", tables(line))
    device = "cuda" if gpus else "cpu"
    if not said.step_s:
        said.step_s, said.step_images = measured_step(Path(said.steps_of))
    line = {"device": device, "size": said.size, "images": said.images, "detections": said.detections,
            "weak": {str(n): paces for n, paces in
                     weak_scaling(said.processes, said.rounds, said.steps, said.size, device).items()},
            "cost": [cost(world, said.images, said.val_images, said.detections) for world in said.ranks],
            "step_s": said.step_s, "gradient_bytes": gradient_bytes()}
    line["estimate"] = {str(n): said.step_s and estimate(said.step_s, said.step_images, line["gradient_bytes"], n)
                        for n in (NODE, 64, 512)}
    print(tables(line))
    append("scaling", line, said.out)


if __name__ == "__main__":
    main()
