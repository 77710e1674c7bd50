"""Scores as many detections as COCO's val2017 has with hotcoco and with pycocotools: time, memory, and the same bits.

    python tests/benchmarks/scoring.py [--images 5000] [--objects 36781] [--detections 493000] [--classes 80]

The data are drawn from a seed. Each of the two runs in a process of its own on one core, which imports only what it
needs. The time is from gathered arrays to all twelve metrics and all classes. Exits 1 if hotcoco (detector/metrics) is
not 30 times as fast, takes 1 s or 600 MiB, or differs in a bit of pycocotools' arrays. Appends a JSON line to
tests/benchmarks/results/scoring.jsonl.
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

MIN_RATIO, MAX_S, MAX_MIB = 30, 1.0, 600
REPEATS = 5  # of hotcoco; pycocotools takes so long that once is enough


def draw(images: int, objects: int, detections: int, classes: int, seed: int = 0):
    """Draws objects of all sizes, 1 % of them crowds, and detections, half of them near an object.

    A few classes are common, many rare. Every image has detections; the last 1 % of the images have no objects. Detections
    near an object have higher scores.

    Returns:
        Dataset, Detections
    """
    from detector.structures import CROWD, Detections, build_dataset
    rng = np.random.default_rng(seed)

    def boxes(count: int) -> np.ndarray:
        sizes = np.exp(rng.normal(4, 1, (count, 2))).clip(2, 600)
        corners = rng.random((count, 2)) * (640 - sizes)
        return np.concatenate([corners, corners + sizes], axis=1)
    image_ids = rng.permutation(600_000)[:images] + 1
    image = np.sort(rng.integers(0, max(images * 99 // 100, 1), objects))
    label = np.minimum(1 + rng.exponential(12, objects).astype(np.int64), classes)
    box, crowd = boxes(objects), np.where(rng.random(objects) < 0.01, CROWD, 0)
    area = np.prod(box[:, 2:] - box[:, :2], axis=1) * rng.uniform(0.4, 1, objects)
    dataset = build_dataset("drawn", "/", [f"class {c}" for c in range(classes)], list(range(1, classes + 1)),
                            [(f"{i}.jpg", int(i), 640, 640) for i in image_ids],
                            np.column_stack([image, label, crowd, area, box]))
    detection_image = np.arange(detections) % images
    first = np.searchsorted(image, detection_image)
    count = np.bincount(image, minlength=images)[detection_image]
    near = (rng.random(detections) < 0.5) & (count > 0)
    nearest = np.minimum(first + (rng.random(detections) * count).astype(np.int64), objects - 1)
    shifted = box[nearest] + rng.normal(0, 0.15, (detections, 4)) * np.tile(box[nearest, 2:] - box[nearest, :2], 2)
    shifted[:, 2:] = np.maximum(shifted[:, 2:], shifted[:, :2] + 1)
    labels = np.where(near & (rng.random(detections) < 0.8), label[nearest], rng.integers(1, classes + 1, detections))
    scores = np.where(near, rng.beta(2, 2, detections), rng.beta(1, 6, detections))
    detection_boxes = np.where(near[:, None], shifted, boxes(detections)).astype(np.float32)
    order = np.argsort(image_ids[detection_image], kind="stable")  # as gathered from all ranks
    return dataset, Detections(image_ids[detection_image][order], detection_boxes[order], scores[order].astype(np.float32),
                               labels[order].astype(np.int32))


def peak_mib() -> float:
    """Returns the peak memory of this process; getrusage would include the process that started it."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def measure(kernel: str, data_file: str) -> dict:
    """Measures one kernel in this process: seconds of each evaluation, memory, metrics, and a hash of the arrays."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    os.environ["RAYON_NUM_THREADS"] = "1"
    from detector.metrics import coco, coco_kernel
    if kernel == "pycocotools":
        coco_kernel.hotcoco = None
    elif not coco_kernel.hotcoco:
        sys.exit(coco_kernel.fallback_message())
    dataset, detections = pickle.loads(Path(data_file).read_bytes())
    before_mib, started_at = peak_mib(), time.perf_counter()
    ground_truth = coco_kernel.index_ground_truth(dataset)
    index_s, seconds, cpu_s = time.perf_counter() - started_at, [], []
    for _ in range(REPEATS if kernel == "ours" else 1):
        started_at, cpu_at = time.perf_counter(), time.process_time()
        arrays = coco_kernel.evaluate_coco(detections, ground_truth)
        metrics, _ = coco.summarize(arrays, dataset.classes)
        seconds.append(time.perf_counter() - started_at)
        cpu_s.append(time.process_time() - cpu_at)
    bits = hashlib.sha256(arrays.precision.tobytes() + arrays.recall.tobytes() + arrays.scores.tobytes()).hexdigest()
    return {"index_s": index_s, "seconds": seconds, "cpu_s": cpu_s, "peak_mib": peak_mib(), "data_mib": before_mib,
            "metrics": metrics, "bits": bits}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, count in (("images", 5000), ("objects", 36781), ("detections", 493_000), ("classes", 80)):
        parser.add_argument(f"--{name}", type=int, default=count)
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(*args.measure)))
        return
    from measuring import append_result
    with tempfile.NamedTemporaryFile() as file:  # drawn here, so that drawing is not part of the measured memory
        Path(file.name).write_bytes(pickle.dumps(draw(args.images, args.objects, args.detections, args.classes)))
        own, peer = (json.loads(subprocess.run([sys.executable, __file__, "--measure", kernel, file.name],
                                               check=True, stdout=subprocess.PIPE).stdout)
                     for kernel in ("ours", "pycocotools"))
    print(f"{args.images} images, {args.objects} objects, {args.detections} detections, {args.classes} classes; one core")
    for name, result in (("hotcoco", own), ("pycocotools", peer)):
        print(f"{name:>12}: index {result['index_s']:.3f} s, then {min(result['seconds']):.3f} to {max(result['seconds']):.3f} "
              f"s an evaluation ({min(result['cpu_s']):.3f} s of CPU); peak {result['peak_mib']:.0f} MiB, of which data and "
              f"interpreter {result['data_mib']:.0f} MiB")
    ratio, cpu_ratio = (min(peer[key]) / min(own[key]) for key in ("seconds", "cpu_s"))
    kept = {"same bits": own["bits"] == peer["bits"], f"{MIN_RATIO} times as fast": ratio >= MIN_RATIO,
            f"below {MAX_S:g} s": max(own["seconds"]) + own["index_s"] < MAX_S,
            f"below {MAX_MIB} MiB": own["peak_mib"] < MAX_MIB}
    print(f"{ratio:.0f} times as fast ({cpu_ratio:.0f} by CPU time); " + ", ".join(
        f"{name}: {'yes' if value else 'NO'}" for name, value in kept.items()))
    append_result("scoring", {"images": args.images, "detections": args.detections, "ours": own, "pycocotools": peer,
                              "ratio": ratio, "kept": kept})
    sys.exit(0 if all(kept.values()) else 1)


if __name__ == "__main__":
    main()
