"""Start-up on as many annotations as COCO's train2017 has: index, cache, first batch, and the memory of loader workers.

    python tests/benchmarks/start_up.py [--images 118287] [--boxes 860001] [--classes 80] [--rounds 3] [--steps 1000]

The annotation file is drawn from a seed, with outlines, as large as COCO's; images are small JPEGs. Each measurement runs
in processes of its own.

- index: from the file to a Dataset, and to pycocotools.COCO, interleaved; the Dataset must take less time
- cache: from the cached index to the training data of a run; below 1 s
- first batch: from the start of the interpreter to the first batch, with the index cached and eight workers; below 5 s
- memory: of the training process, its workers and their fork server, between the first fiftieth of the steps and the last;
  grows by less than 5 %. A page that several of them map counts once (PSS). Library code is left out, because its part
  depends on the other processes of the machine

Exits 1 if one of these limits is exceeded. Appends a JSON line to tests/benchmarks/results/start_up.jsonl.
"""

import argparse
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measuring import append_result, draw_jpegs, format_spread, ratio, spread, write_annotations

HEIGHT, WIDTH, NUM_FILES, GLOBAL_BATCH = 120, 160, 64, 16
MAX_CACHE_S, MAX_FIRST_S, MAX_GROWTH = 1.0, 5.0, 0.05


def write_dataset(root: Path, images: int, boxes: int, classes: int) -> None:
    """Writes a data set below root; each image is a hard link to one of NUM_FILES files."""
    write_annotations(root / "annotations" / "instances_train2017.json", images, boxes, classes, HEIGHT, WIDTH)
    files = draw_jpegs(root / "drawn", min(images, NUM_FILES), HEIGHT, WIDTH)
    (root / "train2017").mkdir()
    for number in range(images):
        os.link(files[number % len(files)], root / "train2017" / f"{number:012d}.jpg")


def peak_gib() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 2**20


def config_of(root: Path):
    from detector.config.load import load_config
    empty = root / "empty.yaml"
    empty.write_text("")
    return load_config(str(empty), [f"data.root={root}", "data.train=[train2017]", "data.val=[]", "run.num_workers=8",
                                    f"data.cache={root / 'cache'}", f"batch.size={GLOBAL_BATCH}"])


def index_own(root: Path) -> dict:
    from detector.data.formats import coco
    started_at, cpu_at = time.perf_counter(), time.process_time()
    dataset = coco.read(str(root), "train2017")
    return {"seconds": time.perf_counter() - started_at, "cpu_s": time.process_time() - cpu_at, "peak_gib": peak_gib(),
            "boxes": len(dataset.boxes)}


def index_pycocotools(root: Path) -> dict:
    from pycocotools.coco import COCO
    started_at, cpu_at = time.perf_counter(), time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):
        index = COCO(str(root / "annotations" / "instances_train2017.json"))
    return {"seconds": time.perf_counter() - started_at, "cpu_s": time.process_time() - cpu_at, "peak_gib": peak_gib(),
            "boxes": len(index.anns)}


def from_cache(root: Path) -> dict:
    from detector.data.read import read_datasets, select_for_training
    config = config_of(root)
    started_at = time.perf_counter()
    data = select_for_training(read_datasets(config.data)[0], config.data)
    return {"seconds": time.perf_counter() - started_at, "boxes": len(data.boxes)}


def train_loader(root: Path):
    """Returns the plan and the loader of a run, made in the order of detector/__main__.py and training/setup.py."""
    from detector.data.workers import worker_context
    config = config_of(root)
    worker_context()
    import torch

    from detector.data.read import read_datasets, select_for_training
    from detector.training.auto_options import resolve_auto
    from detector.training.schedule import plan_run
    from detector.training.train_loader import open_train_loader
    data = select_for_training(read_datasets(config.data)[0], config.data)
    config, _ = resolve_auto(config, data, 1)
    plan = plan_run(config.batch, config.optim, config.schedule, data.sizes, 0, 1)
    return plan, open_train_loader(data, plan, config, 0, torch.device("cpu"))


def first_batch(root: Path) -> dict:
    _, loader = train_loader(root)
    with loader as batches:
        images, _ = next(batches)
        return {"at": time.time(), "images": len(images)}


def memory(root: Path, steps: int) -> dict:
    """Returns MiB after each fiftieth of the steps."""
    plan, loader = train_loader(root)
    mib = []
    with loader as batches:
        processes = [os.getpid(), *(worker.pid for worker in batches.inner._workers)]
        server = int(Path(f"/proc/{processes[1]}/stat").read_text().rsplit(")", 1)[1].split()[1])
        for step in range(1, steps + 1):
            for _ in plan.micro_batches:
                next(batches)
            if step % max(1, steps // 50) == 0:
                mib.append(sum(map(pss_mib, [*processes, server])))
    return {"mib": mib}


def pss_mib(process: int) -> float:
    """Returns the memory of a process that is no file; a page that n processes map counts 1/n."""
    rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
    return sum(int(rollup.split(f"\n{kind}:")[1].split()[0]) for kind in ("Pss_Anon", "Pss_Shmem")) / 1024


def run_part(name: str, root: Path, *args: str) -> dict:
    """Runs one measurement in a process of its own; returns its result."""
    started_at = time.time()
    quiet = ["-W", "ignore:This DataLoader will create"]  # more workers than this machine has cores
    process = subprocess.run([sys.executable, *quiet, __file__, "--part", name, str(root), *args], check=True,
                          stdout=subprocess.PIPE)
    result = json.loads(process.stdout)
    if "at" in result:
        result["seconds"] = result.pop("at") - started_at
    return result


PARTS = {"ours": index_own, "pycocotools": index_pycocotools, "cache": from_cache, "first": first_batch,
         "memory": lambda root, steps: memory(root, int(steps))}


def measure(root: Path, rounds: int, steps: int) -> dict:
    """Returns the results of all parts, each measured `rounds` times, but the memory once."""
    results: dict[str, list[dict]] = {name: [] for name in ("ours", "pycocotools", "cache", "first")}
    for number in range(rounds):
        for name in ("ours", "pycocotools") if number % 2 else ("pycocotools", "ours"):
            results[name].append(run_part(name, root))
    run_part("cache", root)  # not measured: writes the cache
    for name in ("cache", "first"):
        results[name] = [run_part(name, root) for _ in range(rounds)]
    boxes = {result["boxes"] for name in ("ours", "pycocotools", "cache") for result in results[name]}
    assert len(boxes) == 1, f"not the same annotations: {boxes}"
    return {**results, "memory": run_part("memory", root, str(steps))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("images", 118_287), ("boxes", 860_001), ("classes", 80), ("rounds", 3), ("steps", 1000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--folder", default=None, help="where the data are drawn; default: that of temporary files")
    parser.add_argument("--out", default="", help="file to which the JSON line is appended")
    parser.add_argument("--part", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        name, root, *rest = args.part
        print(json.dumps(PARTS[name](Path(root), *rest)))
        return
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        write_dataset(Path(folder), args.images, args.boxes, args.classes)
        size_mib = (Path(folder) / "annotations" / "instances_train2017.json").stat().st_size / 2**20
        print(f"{args.images} images, {args.boxes} boxes, {args.classes} classes: {size_mib:.0f} MiB of JSON", flush=True)
        results = measure(Path(folder), args.rounds, args.steps)
    seconds = {name: [result["seconds"] for result in results[name]] for name in ("ours", "pycocotools", "cache", "first")}
    mib = results["memory"]["mib"]
    growth, faster = mib[-1] / mib[0] - 1, ratio(seconds["pycocotools"], seconds["ours"])
    for name, title in (("ours", "index"), ("pycocotools", "pycocotools.COCO"), ("cache", "index from its cache"),
                       ("first", "first batch of a warm start")):
        details = ""
        if name in ("ours", "pycocotools"):
            cpu_s = spread([result["cpu_s"] for result in results[name]])
            details = f", {format_spread(cpu_s, 3)} s of CPU, peak {max(result['peak_gib'] for result in results[name]):.2f} GiB"
        print(f"{title:>28}: {format_spread(spread(seconds[name]), 3)} s{details}")
    print(f"{'memory with 8 workers':>28}: {mib[0]:.0f} MiB, after {args.steps} steps {mib[-1]:.0f} MiB: {growth:+.1%}")
    kept = {"index in less time": faster["from"] > 1, f"cache below {MAX_CACHE_S:g} s": max(seconds["cache"]) < MAX_CACHE_S,
            f"first batch below {MAX_FIRST_S:g} s": max(seconds["first"]) < MAX_FIRST_S,
            f"memory grows less than {MAX_GROWTH:.0%}": growth < MAX_GROWTH}
    print(f"the index is built {format_spread(faster)} times as fast as pycocotools'; "
          + ", ".join(f"{name}: {'yes' if value else 'NO'}" for name, value in kept.items()))
    append_result("start_up", {"images": args.images, "boxes": args.boxes, "classes": args.classes, "steps": args.steps,
                               "json_mib": size_mib, **results, "ratio": faster, "growth": growth, "kept": kept}, args.out)
    sys.exit(0 if all(kept.values()) else 1)


if __name__ == "__main__":
    main()
