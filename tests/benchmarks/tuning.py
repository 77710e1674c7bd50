"""How the row deeppcb-resnet18-fpn got its settings: AP50 on training boards that were held out, for one change after the other.

    python tests/benchmarks/tuning.py ROOT [--tries first transpose ...] [--folder DIR] [key=value ...]
    python tests/benchmarks/tuning.py --readme      # writes the table of the last lines into configs/README.md

ROOT is DeepPCB as COCO. File names begin with the number of the board; two thirds of the test images are of boards that the training
images lack. HELD_OUT boards are therefore left out of training whole, and the test images are not used. Each try trains on 4,800 crops
of 320 pixels, or about as many pixels in others; `low_scores` and `views` evaluate the weights of the try `faster`.
Tries that have finished in DIR are not trained again. Appends a JSON line for each to tests/benchmarks/results/tuning.jsonl.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from measuring import RESULTS, append_result, write_between_markers

import detector

CONFIGS_README = Path(__file__).parents[2] / "configs" / "README.md"
HELD_OUT = ("13000", "50600", "77000", "92000")
START = {"augment.min_size": [320], "augment.max_size": 320, "augment.scale_jitter": [2, 2], "augment.transpose_prob": 0,
         "schedule.steps": 600, "schedule.warmup_steps": 100, "batch.size": 8, "batch.micro_batch_size": 8,
         "optim.reference_batch_size": 8, "optim.lr": 0.0006, "model.frozen_stages": 2, "evaluate.tta": "none"}
TURNED = {"augment.transpose_prob": 0.5}
BATCHES_OF_4 = {"batch.size": 4, "batch.micro_batch_size": 4, "optim.reference_batch_size": 4}
TRAINED = {**TURNED, "model.frozen_stages": 0}
# Each try: what it changes, in words, and its options beside START.
TRIES = {
    "first": ("two stages frozen, flips, batches of 8, learning rate 0.0006", {}),
    "zoomed": ("transposition, and scales from 0.75 to 1.3", {**TURNED, "augment.scale_jitter": [1.5, 2.6]}),
    "turned": ("transposition: all eight symmetries of a board", TURNED),
    "elsewhere": ("transposition, half of the crops anywhere, 192 RoIs a third of which are objects",
                  {**TURNED, "augment.object_crop_prob": 0.5, "model.roi.batch_size_per_image": 192,
                   "model.roi.positive_fraction": 0.33}),
    "trained": ("transposition, no stage frozen", TRAINED),
    "norms": ("transposition, no stage frozen, norms trained", {**TRAINED, "model.norm": "trained"}),
    "faster": ("transposition, no stage frozen, learning rate 0.001", {**TRAINED, "optim.lr": 0.001}),
    "smaller_batch": ("transposition, no stage frozen, batches of 4, learning rate 0.0005",
                      {**TRAINED, **BATCHES_OF_4, "optim.lr": 0.0005, "schedule.warmup_steps": 200, "schedule.steps": 1200}),
    "fastest": ("transposition, no stage frozen, learning rate 0.002", {**TRAINED, "optim.lr": 0.002}),
    "larger": ("transposition, no stage frozen, learning rate 0.001, crops of 256 pixels enlarged to 320",
               {**TRAINED, "optim.lr": 0.001, "augment.scale_jitter": [2.5, 2.5], "evaluate.min_size": 800,
                "evaluate.max_size": 800}),
    "context": ("transposition, no stage frozen, half as many crops of 448 pixels, batches of 4, learning rate 0.0007",
                {**TRAINED, **BATCHES_OF_4, "optim.lr": 0.0007, "augment.min_size": [448], "augment.max_size": 448,
                 "augment.scale_jitter": [1.4286, 1.4286]}),
    "narrow": ("transposition, no stage frozen, learning rate 0.001, twice as many batches of 8 crops of 224 pixels",
               {**TRAINED, "optim.lr": 0.001, "augment.min_size": [224], "augment.max_size": 224,
                "augment.scale_jitter": [2.8571, 2.8571], "schedule.steps": 1200}),
    "narrow_16": ("transposition, no stage frozen, learning rate 0.0014, as many batches of 16 crops of 224 pixels",
                  {**TRAINED, "optim.lr": 0.0014, "augment.min_size": [224], "augment.max_size": 224,
                   "augment.scale_jitter": [2.8571, 2.8571], "batch.size": 16, "batch.micro_batch_size": 16,
                   "optim.reference_batch_size": 16}),
    "beta": ("transposition, no stage frozen, learning rate 0.001, box loss quadratic below 1",
             {**TRAINED, "optim.lr": 0.001, "model.roi.smooth_l1_beta": 1.0}),
    "agnostic": ("transposition, no stage frozen, learning rate 0.001, one box for all classes",
                 {**TRAINED, "optim.lr": 0.001, "model.class_agnostic": True})}
# Each evaluation of a try's weights: in words, the try, and its options.
EVALUATIONS = {
    "low_scores": ("learning rate 0.001, detections down to a score of 0.001", "faster",
                   {"evaluate.score_thresh": 0.001, "evaluate.tta": "none"}),
    "views": ("learning rate 0.001, scores from 0.001, each image and three flipped views of it", "faster",
              {"evaluate.score_thresh": 0.001, "evaluate.tta": "flips"})}


def write_split(root: Path, folder: Path, held_out: tuple[str, ...]) -> None:
    """Writes the annotations of the training images of `root` as two splits, fit and held, of whole boards."""
    annotations = json.loads((root / "annotations" / "instances_train.json").read_text())
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    if not (folder / "images").exists():
        (folder / "images").symlink_to(root.resolve() / "images")
    for split in ("fit", "held"):
        images = [image for image in annotations["images"] if (Path(image["file_name"]).name.startswith(held_out)) == (split == "held")]
        ids = {image["id"] for image in images}
        objects = [entry for entry in annotations["annotations"] if entry["image_id"] in ids]
        (folder / "annotations" / f"instances_{split}.json").write_text(
            json.dumps({**annotations, "images": images, "annotations": objects}))


def run_try(name: str, folder: Path, overrides: list[str]) -> dict:
    """Trains a try, if that is not done yet, and returns its result line."""
    options = [f"{key}={json.dumps(value)}" for key, value in {**START, **TRIES[name][1]}.items()]
    subprocess.run([sys.executable, "-m", "detector", "train", "tables/deeppcb-resnet18-fpn", f"data.root={folder}", "data.train=fit",
                    "data.val=held", f"run.folder={folder / 'runs'}", f"run.name={name}", *options, *overrides], check=True)
    return result_line(name, json.loads((folder / "runs" / name / "results.json").read_text()))


def evaluate_try(name: str, folder: Path, overrides: list[str]) -> dict:
    """Evaluates the weights of a try, which is trained if that is not done yet, in another way; returns its result line."""
    _, trained, options = EVALUATIONS[name]
    run_try(trained, folder, overrides)
    result = detector.evaluate(folder / "runs" / trained, [f"{key}={value}" for key, value in options.items()], "last")
    return result_line(name, asdict(result))


def result_line(name: str, results: dict) -> dict:
    """Returns the result line of a try; `results`: as in results.json."""
    return {"try": name, "step": results["step"], "AP": results["metrics"]["AP"], "AP50": results["metrics"]["AP50"],
            "classes": {label: values["AP50"] for label, values in results["per_class"].items()}}


def table(lines: list[dict]) -> str:
    """Returns the markdown table of the last line of each try."""
    last = {line["try"]: line for line in lines}
    rows = ["| try | AP50 | AP | weakest class |", "|---|---|---|---|"]
    for name, (text, *_) in (TRIES | EVALUATIONS).items():
        if name in last:
            line = last[name]
            weakest = min(line["classes"], key=line["classes"].get)
            rows.append(f"| {text} | {line['AP50']:.3f} | {line['AP']:.3f} | {weakest} {line['classes'][weakest]:.3f} |")
        else:
            rows.append(f"| {text} | not measured | | |")
    return "\n".join(rows)


def read_lines() -> list[dict]:
    path = RESULTS / "tuning.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", nargs="?", type=Path)
    parser.add_argument("--tries", nargs="+", choices=[*TRIES, *EVALUATIONS], default=[*TRIES, *EVALUATIONS])
    parser.add_argument("--folder", type=Path, help="keeps splits and runs; default: a temporary folder")
    parser.add_argument("--out", default="", help="file to which the JSON lines are appended")
    parser.add_argument("--readme", action="store_true", help="write the table into configs/README.md")
    parser.add_argument("overrides", nargs="*")
    args = parser.parse_intermixed_args()
    if args.readme:
        write_between_markers(CONFIGS_README, "tuning", table(read_lines()))
        return
    if not args.root:
        parser.error("ROOT or --readme is needed")
    with tempfile.TemporaryDirectory() as temporary:
        folder = (args.folder or Path(temporary)).resolve()
        write_split(args.root, folder, HELD_OUT)
        for name in args.tries:
            line = (run_try if name in TRIES else evaluate_try)(name, folder, args.overrides)
            append_result("tuning", line, args.out)
            print(f"{name}: AP50 {line['AP50']:.4f}, AP {line['AP']:.4f}", flush=True)


if __name__ == "__main__":
    main()
