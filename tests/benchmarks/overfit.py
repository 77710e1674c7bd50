"""Trains a config whose val is its train, and says how well it knows its images by heart.

    python tests/benchmarks/overfit.py configs/custom/coco_tiny.yaml data.root=DIR [key=value ...]

Exits 1 if AP50 is not above 0.8. Appends a JSON line to tests/benchmarks/results/overfit.jsonl.
"""

import argparse
import json
import subprocess
import sys

from measuring import append

from detector.config.load import load_config, run_folder

LEAST_AP50 = 0.8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("overrides", nargs="*")
    said = parser.parse_args()
    config = load_config(said.config, said.overrides)
    if config.data.train != config.data.val:
        sys.exit("data.train and data.val differ: this asks what is known of the training images")
    subprocess.run([sys.executable, "-m", "detector", "train", said.config, *said.overrides], check=True)
    results = json.loads((run_folder(config) / "results.json").read_text())
    line = {"config": said.config, "overrides": said.overrides, "step": results["step"],
            "AP": results["metrics"]["AP"], "AP50": results["metrics"]["AP50"]}
    append("overfit", line)
    print(f"AP50 {line['AP50']:.4f} on the training images after {line['step']} steps (above {LEAST_AP50} is asked)")
    sys.exit(0 if line["AP50"] > LEAST_AP50 else 1)


if __name__ == "__main__":
    main()
