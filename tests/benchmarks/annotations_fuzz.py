"""Reads mutated annotation files, lists and configs: every one gives a data set, or one error that says what is wrong.

    python tests/benchmarks/annotations_fuzz.py [--cases 10000] [--seed 0] [--only voc]
    python tests/benchmarks/annotations_fuzz.py --case 4711      # one case, with its traceback and the mutated file

Any other exception or warning, a signal, and a case that takes longer than 10 s are failures; exits 1 if there is one. Appends
a JSON line to tests/benchmarks/results/annotations_fuzz.jsonl.
"""

import argparse
import json
import random
import select
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

from annotation_mutations import mutate
from measuring import append_result

TIME_LIMIT_S = 10
CONFIG = """model:
  backbone: resnet18_fpn
  weights: imagenet
data: {format: coco, root: /data, train: [train]}
optim:
  lr: 0.01
schedule: {epochs: 3}
augment:
  min_size: [320, 400]
"""
STEMS = ("a", "b c", "d")


@dataclass(frozen=True)
class Target:
    """What reads a small valid data set, of which one file is mutated.

    files: path below the folder -> content; read: (folder) -> None, raises BadInput for content that it refuses.
    """

    files: dict[str, str]
    read: Callable[[Path], object]


def read_data(format_name: str, split: str, images: str = "") -> Callable[[Path], object]:
    def read(folder: Path) -> object:
        from detector.config.schema import Data
        from detector.data.read import read_datasets
        return read_datasets(Data(format=format_name, root=str(folder), train=(split,), val=(split,), images=images,
                                  cache="/dev/null/no cache"))
    return read


def read_config(folder: Path) -> object:
    from detector.config.load import load_config
    return load_config(str(folder / "config.yaml"))


def read_detections(folder: Path) -> object:
    from detector.data.formats import coco
    from detector.evaluation.detections_file import read_detections as read
    return read(str(folder / "detections.json"), coco.read(str(folder), "val"))


def voc_xml(stem: str, more: str = "") -> str:
    box = "<xmin>1</xmin><ymin>2.5</ymin><xmax>7</xmax><ymax>6</ymax>"
    return (f"<annotation><filename>{stem}.jpg</filename><size><width>8</width><height>8</height></size><object><name>cat</name>"
            f"<difficult>0</difficult><bndbox>{box}</bndbox></object><object><name>dög</name><polygon><x1>1</x1><y1>1</y1>"
            f"<x2>5</x2><y2>6</y2></polygon>{more}</object></annotation>")


def targets() -> dict[str, Target]:
    from detector.data.formats import FORMATS
    boxes = [[1, 2, 5, 6], [0, 0, 8, 8]]
    coco = json.dumps({"images": [{"id": n, "file_name": f"{stem}.jpg", "width": 8, "height": 8} for n, stem in enumerate(STEMS)],
                       "annotations": [{"id": n, "image_id": n % 3, "category_id": 1 + n % 2, "bbox": boxes[n % 2],
                                        "area": 20, "iscrowd": 0,
                                        "segmentation": [[1, 1, 5, 1, 5, 5]]} for n in range(4)],
                       "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog", "supercategory": "pet"}]})
    detections = json.dumps([{"image_id": n, "category_id": 1, "bbox": boxes[0], "score": 0.5} for n in range(3)])
    genome = {"1.0": ("id", "id"), "1.4": ("image_id", "object_id")}
    wordnet = voc_xml("a").replace("cat", "n1").replace("dög", "n2")
    result = {
        "coco": Target({"annotations/instances_val.json": coco}, read_data("coco", "val", ".")),
        "voc": Target({"ImageSets/Main/val.txt": "a\nb c\nd\n", **{f"Annotations/{stem}.xml": voc_xml(stem) for stem in STEMS}},
                      read_data("voc", "val", ".")),
        "voc without lists": Target({f"{stem}.xml": voc_xml(stem) for stem in STEMS}, read_data("voc", "all")),
        "per_image_json": Target({"val.txt": "a\nd\n", **{f"labels/{stem}.json": json.dumps(
            {"labels": ["cat", 2], "boxes": boxes}) for stem in STEMS}}, read_data("per_image_json", "val", ".")),
        "labelme": Target({f"{stem}.json": json.dumps({"version": "5.0", "imagePath": f"{stem}.jpg", "shapes": [
            {"label": "cat", "points": [[1, 1], [5, 6]], "shape_type": shape} for shape in ("rectangle", "circle", "polygon")]})
            for stem in STEMS}, read_data("per_image_json", "all")),
        "visual_genome xml": Target({"2/objects_vocab.txt": "cat,kitten\ndög\n", "val.txt": "1.jpg xml/1.xml\n2.jpg xml/2.xml\n",
                                     "xml/1.xml": voc_xml("1"), "xml/2.xml": voc_xml("2")}, read_data("visual_genome", "2/val")),
        "imagenet_det": Target({"ImageSets/DET/val.txt": "a 1\nd 2\n", "Annotations/DET/val/a.xml": wordnet,
                                "Annotations/DET/val/d.xml": wordnet,
                                "devkit/data/map_det.txt": "n1 1 cat\nn2 2 dog\n"}, read_data("imagenet_det", "val", ".")),
        "config": Target({"config.yaml": CONFIG}, read_config),
        "detections": Target({"annotations/instances_val.json": coco, "detections.json": detections}, read_detections)}
    for version, (image_key, object_key) in genome.items():
        objects = [{"names": ["cat"], "x": 1, "y": 1, "w": 4, "h": 5, object_key: 7, "synsets": []}] * 2
        result[f"visual_genome {version}"] = Target({
            "2/objects_vocab.txt": "cat,kitten\ndog\n", "val.txt": "1.jpg xml/1.xml\n2.jpg xml/2.xml\n",
            "image_data.json": json.dumps([{image_key: n, "width": 8, "height": 8} for n in (1, 2)]),
            "objects.json": json.dumps([{image_key: n, "objects": objects} for n in (1, 2)])}, read_data("visual_genome", "2/val"))
    if "yolo" in FORMATS:
        result["yolo"] = Target({"data.yaml": "path: .\ntrain: images/val\nval: images/val\nnames:\n  0: cat\n  1: dog\n", **{
            f"labels/val/{stem}.txt": "0 0.5 0.5 0.25 0.5\n1 0.1 0.1 0.5 0.1 0.5 0.6\n" for stem in STEMS}}, read_data("yolo", "val"))
    return result


def prepare(target: Target, folder: Path) -> None:
    from PIL import Image
    for path, content in target.files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content, encoding="utf-8")
    for stem in (*STEMS, *(f"images/val/{stem}" for stem in STEMS), "1", "2"):
        (folder / stem).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(folder / f"{stem}.jpg")
    target.read(folder)  # valid as it is


def run_case(number: int, seed: int, all_targets: dict[str, Target], folder: Path, is_shown: bool = False) -> tuple[str, str]:
    """Returns the target and the outcome of one case: "read", "refused", or the traceback."""
    from detector.errors import BadInput
    name = list(all_targets)[number % len(all_targets)]
    target, place, rng = all_targets[name], folder / name, random.Random(f"{seed} {number}")
    if not place.exists():
        prepare(target, place)
    path = rng.choice(sorted(target.files) if name != "detections" else ["detections.json"])
    content = mutate((place / path).read_bytes(), path, rng)
    if is_shown:
        print(f"{name}: {path}\n{content[:3000]!r}")
    (place / path).write_bytes(content)
    try:
        target.read(place)
        return name, "read"
    except BadInput as error:
        if is_shown:
            print(str(error)[:3000])
        return name, "refused"
    except Exception:
        return name, traceback.format_exc()
    finally:
        (place / path).write_text(target.files[path], encoding="utf-8")


def work(first: int, last: int, seed: int, names: list[str], is_shown: bool) -> None:
    """Runs cases in this process, and prints a line before and after each."""
    warnings.simplefilter("error")
    chosen = {name: target for name, target in targets().items() if name in names}
    with tempfile.TemporaryDirectory(prefix="fleet-annotations-") as folder:
        for number in range(first, last):
            print(json.dumps([number]), flush=True)
            print(json.dumps([number, *run_case(number, seed, chosen, Path(folder), is_shown)]), flush=True)


def run_all(cases: int, seed: int, names: list[str]) -> tuple[Counter, list[dict]]:
    """Runs the cases in other processes, a new one after a signal or a time-out; returns counts of outcomes, and failures."""
    outcomes, failures, following = Counter(), [], 0
    while following < cases:
        command = [sys.executable, __file__, "--worker", str(following), str(cases), "--seed", str(seed), "--only", *names]
        worker = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, bufsize=1)
        current = following - 1
        while True:
            limit_s = TIME_LIMIT_S if current >= following else 120  # the first line comes after the imports
            ready, _, _ = select.select([worker.stdout], [], [], limit_s)
            line = worker.stdout.readline() if ready else ""
            if not line:
                break
            number, *result = json.loads(line)
            current = max(current, number)
            if result:
                name, outcome = result
                following = number + 1
                outcomes[f"{name}: {outcome if outcome in ('read', 'refused') else 'failed'}"] += 1
                if outcome not in ("read", "refused"):
                    report(failures, number, name, outcome)
        worker.kill()
        status = worker.wait()
        if following < cases:
            cause = f"signal {-status}" if ready and status < 0 else "time-out" if not ready else f"exit status {status}"
            report(failures, following, names[following % len(names)], cause)
            following += 1
    return outcomes, failures


def report(failures: list[dict], case: int, target: str, failure: str) -> None:
    print(f"case {case} ({target}): {failure}", flush=True)
    failures.append({"case": case, "target": target, "failure": failure})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", default=[])
    parser.add_argument("--case", type=int, help="runs one case in this process")
    parser.add_argument("--worker", type=int, nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--out", default="")
    args = parser.parse_args()
    names = args.only or list(targets())
    if args.worker:
        return work(*args.worker, args.seed, names, False)
    if args.case is not None:
        return work(args.case, args.case + 1, args.seed, names, True)
    started_at = time.monotonic()
    outcomes, failures = run_all(args.cases, args.seed, names)
    elapsed_s = round(time.monotonic() - started_at, 1)
    append_result("annotations_fuzz", {"cases": args.cases, "seed": args.seed, "elapsed_s": elapsed_s, "outcomes": dict(sorted(
        outcomes.items())), "failures": [{**failure, "failure": failure["failure"][-300:]} for failure in failures]}, args.out)
    print(f"{args.cases} mutated files in {elapsed_s} s, {len(failures)} failures. {json.dumps(dict(sorted(outcomes.items())))}")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
