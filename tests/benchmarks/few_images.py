"""Trains on a few images of a VOC tree with the default options, and evaluates on a held-out part of them.

    python tests/benchmarks/few_images.py ROOT --weights FILE [--backbone resnet18_fpn] [--images 40] [key=value ...]

ROOT is a VOC tree such as BCCD. Exits 1 if AP50 is below 0.7. Appends a JSON line to
tests/benchmarks/results/few_images.jsonl.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml
from measuring import append_result

MIN_AP50 = 0.7
VAL = 0.3  # of the images


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--weights", required=True, type=Path)
    parser.add_argument("--backbone", default="resnet18_fpn")
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("overrides", nargs="*")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = take_images(args.root.resolve(), Path(folder) / "few", args.images)
        config = Path(folder) / "few.yaml"
        config.write_text(yaml.safe_dump({
            "data": {"root": str(root), "val": VAL, "cache": f"{folder}/cache"}, "run": {"folder": f"{folder}/runs"},
            "model": {"backbone": args.backbone, "weights": str(args.weights.resolve())}}))
        started_at = time.monotonic()
        subprocess.run([sys.executable, "-m", "detector", "train", str(config), *args.overrides], check=True)
        minutes = (time.monotonic() - started_at) / 60
        results = json.loads((Path(folder) / "runs" / "few" / "results.json").read_text())
    line = {"images": args.images, "backbone": args.backbone, "overrides": args.overrides, "step": results["step"],
            "minutes": round(minutes, 2), "AP": results["metrics"]["AP"], "AP50": results["metrics"]["AP50"]}
    append_result("few_images", line)
    print(f"AP50 {line['AP50']:.4f} on held-out images after {minutes:.1f} minutes (required: {MIN_AP50})")
    sys.exit(0 if line["AP50"] >= MIN_AP50 else 1)


def take_images(root: Path, target: Path, count: int) -> Path:
    """Creates a VOC tree of evenly spaced images of `root`, linked, all in the split train."""
    stems = sorted(path.stem for path in (root / "Annotations").glob("*.xml"))
    chosen = stems[::max(1, len(stems) // count)][:count]
    (target / "ImageSets" / "Main").mkdir(parents=True)
    (target / "ImageSets" / "Main" / "train.txt").write_text("\n".join(chosen) + "\n")
    for name, ending in (("Annotations", "xml"), ("JPEGImages", "jpg")):
        (target / name).mkdir()
        for stem in chosen:
            (target / name / f"{stem}.{ending}").symlink_to(root / name / f"{stem}.{ending}")
    return target


if __name__ == "__main__":
    main()
