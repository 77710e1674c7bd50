"""Starting on as many annotations as COCO's train2017 has: the index beside pycocotools', its cache, the first batch, and
what loader workers take of memory as they go on.

    python tests/benchmarks/start_up.py [--images 118287] [--boxes 860001] [--classes 80] [--rounds 3] [--steps 1000]

The annotation file is drawn from a seed, with outlines, as large as COCO's; images are small JPEGs. Each measurement has
processes of its own.

- index: from the file to our Dataset, and to pycocotools.COCO, which take turns; ours must take less time
- cache: from the cached index to data that a run trains on; below 1 s
- first batch: from the start of the interpreter to the first batch, with the index cached and eight workers; below 5 s
- memory: of the training process, its workers and their server, between the first fiftieth of the steps and the last;
  grows by less than 5 %. A page that many of them map counts once (PSS). Library code is left out: its share depends on
  who else on the machine has it loaded

Exits 1 where one of these does not hold. Appends a JSON line to tests/benchmarks/results/start_up.jsonl.
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

from measuring import annotation_file, append, photographs, ratio, spread, told

HEIGHT, WIDTH, POOL, GLOBAL_BATCH = 120, 160, 64, 16
MOST_CACHE_S, MOST_FIRST_S, MOST_GROWTH = 1.0, 5.0, 0.05


def lay_out(root: Path, images: int, boxes: int, classes: int) -> None:
    """A data set below root. Each image is a link to one of a few files."""
    annotation_file(root / "annotations" / "instances_train2017.json", images, boxes, classes, HEIGHT, WIDTH)
    drawn = photographs(root / "drawn", min(images, POOL), HEIGHT, WIDTH)
    (root / "train2017").mkdir()
    for number in range(images):
        os.link(drawn[number % len(drawn)], root / "train2017" / f"{number:012d}.jpg")


def peak_gib() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 2**20


def config_of(root: Path):
    from detector.config.load import load_config
    empty = root / "empty.yaml"
    empty.write_text("")
    return load_config(str(empty), [f"data.root={root}", "data.train=[train2017]", "data.val=[]", "run.num_workers=8",
                                    f"data.cache={root / 'cache'}", f"batch.size={GLOBAL_BATCH}"])


def index_ours(root: Path) -> dict:
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


def steps_of(root: Path):
    """This run's batches, to be opened: in the order of detector/__main__.py and start.py, without a model."""
    from detector.data.workers import worker_context
    config = config_of(root)
    worker_context()
    import torch

    from detector.data.read import read_datasets, select_for_training
    from detector.training.schedule import plan_run
    from detector.training.train_loader import open_steps
    data = select_for_training(read_datasets(config.data)[0], config.data)
    plan = plan_run(config.batch, config.optim, config.schedule, data.sizes, 0, 1)
    return plan, open_steps(data, plan, config, 0, torch.device("cpu"))


def first_batch(root: Path) -> dict:
    _, opened = steps_of(root)
    with opened as batches:
        images, _ = next(batches)
        return {"at": time.time(), "images": len(images)}


def memory(root: Path, steps: int) -> dict:
    """MiB after each fiftieth of the steps."""
    plan, opened = steps_of(root)
    found = []
    with opened as batches:
        processes = [os.getpid(), *(worker.pid for worker in batches.inner._workers)]
        server = int(Path(f"/proc/{processes[1]}/stat").read_text().rsplit(")", 1)[1].split()[1])
        for step in range(1, steps + 1):
            for _ in plan.micro:
                next(batches)
            if step % max(1, steps // 50) == 0:
                found.append(sum(map(pss_mib, [*processes, server])))
    return {"mib": found}


def pss_mib(process: int) -> float:
    """Its share of the memory that is no file."""
    rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
    return sum(int(rollup.split(f"\n{kind}:")[1].split()[0]) for kind in ("Pss_Anon", "Pss_Shmem")) / 1024


def part(name: str, root: Path, *more: str) -> dict:
    """One measurement in a process of its own."""
    started_at = time.time()
    quiet = ["-W", "ignore:This DataLoader will create"]  # more workers than this machine has cores
    done = subprocess.run([sys.executable, *quiet, __file__, "--part", name, str(root), *more], check=True,
                          stdout=subprocess.PIPE)
    found = json.loads(done.stdout)
    return {**found, "seconds": found.pop("at") - started_at} if "at" in found else found


PARTS = {"ours": index_ours, "pycocotools": index_pycocotools, "cache": from_cache, "first": first_batch,
         "memory": lambda root, steps: memory(root, int(steps))}


def measure(root: Path, rounds: int, steps: int) -> dict:
    """All parts, `rounds` times; the memory once."""
    found: dict[str, list[dict]] = {name: [] for name in ("ours", "pycocotools", "cache", "first")}
    for turn in range(rounds):
        for name in ("ours", "pycocotools") if turn % 2 else ("pycocotools", "ours"):
            found[name].append(part(name, root))
    part("cache", root)  # writes it
    for name in ("cache", "first"):
        found[name] = [part(name, root) for _ in range(rounds)]
    boxes = {one["boxes"] for name in ("ours", "pycocotools", "cache") for one in found[name]}
    assert len(boxes) == 1, f"not the same annotations: {boxes}"
    return {**found, "memory": part("memory", root, str(steps))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("images", 118_287), ("boxes", 860_001), ("classes", 80), ("rounds", 3), ("steps", 1000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--folder", default=None, help="where the data are drawn; default: that of temporary files")
    parser.add_argument("--out", default="", help="where the JSON line is appended")
    parser.add_argument("--part", nargs="+", help=argparse.SUPPRESS)
    said = parser.parse_args()
    if said.part:
        name, root, *more = said.part
        print(json.dumps(PARTS[name](Path(root), *more)))
        return
    with tempfile.TemporaryDirectory(dir=said.folder) as folder:
        lay_out(Path(folder), said.images, said.boxes, said.classes)
        size_mib = (Path(folder) / "annotations" / "instances_train2017.json").stat().st_size / 2**20
        print(f"{said.images} images, {said.boxes} boxes, {said.classes} classes: {size_mib:.0f} MiB of JSON", flush=True)
        found = measure(Path(folder), said.rounds, said.steps)
    seconds = {name: [one["seconds"] for one in found[name]] for name in ("ours", "pycocotools", "cache", "first")}
    mib = found["memory"]["mib"]
    growth, faster = mib[-1] / mib[0] - 1, ratio(seconds["pycocotools"], seconds["ours"])
    for name, what in (("ours", "our index"), ("pycocotools", "pycocotools.COCO"), ("cache", "index from its cache"),
                       ("first", "first batch of a warm start")):
        more = f", {told(spread([one['cpu_s'] for one in found[name]]), 3)} s of CPU, peak " \
               f"{max(one['peak_gib'] for one in found[name]):.2f} GiB" if name in ("ours", "pycocotools") else ""
        print(f"{what:>28}: {told(spread(seconds[name]), 3)} s{more}")
    print(f"{'memory of 8 workers and all':>28}: {mib[0]:.0f} MiB, after {said.steps} steps {mib[-1]:.0f} MiB: {growth:+.1%}")
    kept = {"index in less time": faster["from"] > 1, f"cache below {MOST_CACHE_S:g} s": max(seconds["cache"]) < MOST_CACHE_S,
            f"first batch below {MOST_FIRST_S:g} s": max(seconds["first"]) < MOST_FIRST_S,
            f"memory grows less than {MOST_GROWTH:.0%}": growth < MOST_GROWTH}
    print(f"the index is built {told(faster)} times as fast as pycocotools'; "
          + ", ".join(f"{name}: {'yes' if value else 'NO'}" for name, value in kept.items()))
    append("start_up", {"images": said.images, "boxes": said.boxes, "classes": said.classes, "steps": said.steps,
                        "json_mib": size_mib, **found, "ratio": faster, "growth": growth, "kept": kept}, said.out)
    sys.exit(0 if all(kept.values()) else 1)


if __name__ == "__main__":
    main()
