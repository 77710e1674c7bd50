"""Scores as many detections as COCO's val2017 has, by our kernel and by pycocotools: time, memory, and the same bits.

    python tests/benchmarks/scoring.py [--images 5000] [--objects 36781] [--detections 493000] [--classes 80]

The data are drawn here, from a seed. Each of the two has a process of its own on one core, which imports only what it
needs; time is from gathered arrays to all twelve numbers and every class. Exits 1 if ours is not 30 times as fast, takes
1 s or 600 MiB, or differs in a bit of pycocotools' arrays. Appends a JSON line to tests/benchmarks/results/scoring.jsonl.
"""

import argparse
import hashlib
import json
import os
import pickle
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

LEAST_RATIO, MOST_S, MOST_MIB = 30, 1.0, 600
REPEATS = 5  # of ours; pycocotools takes so long that once is enough


def draw(images: int, objects: int, detections: int, classes: int, seed: int = 0):
    """Objects of all sizes, 1 % of them crowds; half of the detections near an object, the better ones more often.

    A few common classes and many rare ones; no image is without detections, some are without objects.
    """
    from detector.structures import CROWD, Detections, build_dataset
    chance = np.random.default_rng(seed)

    def boxes(count: int) -> np.ndarray:
        sides = np.exp(chance.normal(4, 1, (count, 2))).clip(2, 600)
        corners = chance.random((count, 2)) * (640 - sides)
        return np.concatenate([corners, corners + sides], axis=1)
    image_ids = chance.permutation(600_000)[:images] + 1
    image = np.sort(chance.integers(0, max(images * 99 // 100, 1), objects))
    label = np.minimum(1 + chance.exponential(12, objects).astype(np.int64), classes)
    box, crowd = boxes(objects), np.where(chance.random(objects) < 0.01, CROWD, 0)
    area = np.prod(box[:, 2:] - box[:, :2], axis=1) * chance.uniform(0.4, 1, objects)
    dataset = build_dataset("drawn", "/", [f"class {c}" for c in range(classes)], list(range(1, classes + 1)),
                       [(f"{i}.jpg", int(i), 640, 640) for i in image_ids],
                       np.column_stack([image, label, crowd, area, box]))
    where = np.arange(detections) % images
    first, count = np.searchsorted(image, where), np.bincount(image, minlength=images)[where]
    near = (chance.random(detections) < 0.5) & (count > 0)
    of = np.minimum(first + (chance.random(detections) * count).astype(np.int64), objects - 1)
    shaken = box[of] + chance.normal(0, 0.15, (detections, 4)) * np.tile(box[of, 2:] - box[of, :2], 2)
    shaken[:, 2:] = np.maximum(shaken[:, 2:], shaken[:, :2] + 1)
    labels = np.where(near & (chance.random(detections) < 0.8), label[of], chance.integers(1, classes + 1, detections))
    scores = np.where(near, chance.beta(2, 2, detections), chance.beta(1, 6, detections))
    placed = np.where(near[:, None], shaken, boxes(detections)).astype(np.float32)
    order = np.argsort(image_ids[where], kind="stable")  # as gathered
    return dataset, Detections(image_ids[where][order], placed[order], scores[order].astype(np.float32),
                               labels[order].astype(np.int32))


def peak_mib() -> float:
    """Of this process since it began; getrusage would count the process that started it, too."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def measure(which: str, drawn: str) -> dict:
    """In a process of its own: seconds of each evaluation, memory, the metrics, and a hash of the arrays' bits."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    os.environ["RAYON_NUM_THREADS"] = "1"
    from detector.metrics import coco, coco_kernel
    if which == "pycocotools":
        coco_kernel.hotcoco = None
    elif not coco_kernel.hotcoco:
        sys.exit(coco_kernel.fallback_message())
    dataset, detections = pickle.loads(Path(drawn).read_bytes())
    before_mib, started_at = peak_mib(), time.perf_counter()
    truth = coco_kernel.index_ground_truth(dataset)
    index_s, seconds, cpu_s = time.perf_counter() - started_at, [], []
    for _ in range(REPEATS if which == "ours" else 1):
        started_at, cpu_at = time.perf_counter(), time.process_time()
        curves = coco_kernel.evaluate_coco(detections, truth)
        metrics, _ = coco.summarize(curves, dataset.classes)
        seconds.append(time.perf_counter() - started_at)
        cpu_s.append(time.process_time() - cpu_at)
    bits = hashlib.sha256(curves.precision.tobytes() + curves.recall.tobytes() + curves.scores.tobytes()).hexdigest()
    return {"index_s": index_s, "seconds": seconds, "cpu_s": cpu_s, "peak_mib": peak_mib(), "data_mib": before_mib,
            "metrics": metrics, "bits": bits}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, count in (("images", 5000), ("objects", 36781), ("detections", 493_000), ("classes", 80)):
        parser.add_argument(f"--{name}", type=int, default=count)
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    said = parser.parse_args()
    if said.measure:
        print(json.dumps(measure(*said.measure)))
        return
    from measuring import append
    with tempfile.NamedTemporaryFile() as drawn:  # so that drawing is not part of the memory
        Path(drawn.name).write_bytes(pickle.dumps(draw(said.images, said.objects, said.detections, said.classes)))
        ours, theirs = (json.loads(subprocess.run([sys.executable, __file__, "--measure", which, drawn.name],
                                                  check=True, stdout=subprocess.PIPE).stdout)
                        for which in ("ours", "pycocotools"))
    print(f"{said.images} images, {said.objects} objects, {said.detections} detections, {said.classes} classes; one core")
    for name, of in (("ours", ours), ("pycocotools", theirs)):
        print(f"{name:>12}: index {of['index_s']:.3f} s, then {min(of['seconds']):.3f} to {max(of['seconds']):.3f} s an "
              f"evaluation ({min(of['cpu_s']):.3f} s of CPU); peak {of['peak_mib']:.0f} MiB, of which data and "
              f"interpreter {of['data_mib']:.0f} MiB")
    ratio, cpu_ratio = (min(theirs[key]) / min(ours[key]) for key in ("seconds", "cpu_s"))
    kept = {"same bits": ours["bits"] == theirs["bits"], f"{LEAST_RATIO} times as fast": ratio >= LEAST_RATIO,
            f"below {MOST_S:g} s": max(ours["seconds"]) + ours["index_s"] < MOST_S,
            f"below {MOST_MIB} MiB": ours["peak_mib"] < MOST_MIB}
    print(f"{ratio:.0f} times as fast ({cpu_ratio:.0f} by CPU time); " + ", ".join(
        f"{name}: {'yes' if value else 'NO'}" for name, value in kept.items()))
    append("scoring", {"images": said.images, "detections": said.detections, "ours": ours, "pycocotools": theirs, "ratio": ratio,
                       "kept": kept})
    sys.exit(0 if all(kept.values()) else 1)


if __name__ == "__main__":
    main()
