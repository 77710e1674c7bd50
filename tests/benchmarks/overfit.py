"""Trains a config whose validation images are its training images, and checks that it overfits them.

    python tests/benchmarks/overfit.py configs/custom/coco_tiny.yaml data.root=DIR [key=value ...]

Exits 1 if AP50 is not above 0.8. Appends a JSON line to tests/benchmarks/results/overfit.jsonl.
"""

import argparse
import json
import subprocess
import sys

from measuring import append_result

from detector.config.load import load_config, run_folder

MIN_AP50 = 0.8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("overrides", nargs="*")
    args = parser.parse_args()
    config = load_config(args.config, args.overrides)
    if config.data.train != config.data.val:
        sys.exit(f"data.val={list(config.data.val)} must equal data.train={list(config.data.train)} here")
    subprocess.run([sys.executable, "-m", "detector", "train", args.config, *args.overrides], check=True)
    results = json.loads((run_folder(config) / "results.json").read_text())
    line = {"config": args.config, "overrides": args.overrides, "step": results["step"],
            "AP": results["metrics"]["AP"], "AP50": results["metrics"]["AP50"]}
    append_result("overfit", line)
    print(f"AP50 {line['AP50']:.4f} on the training images after {line['step']} steps (required: above {MIN_AP50})")
    sys.exit(0 if line["AP50"] > MIN_AP50 else 1)


if __name__ == "__main__":
    main()
