"""Compares two checkouts on this machine: weights, evaluation, job scripts, `check --json`, state-dict names.

    python tests/compare_checkouts.py OLD NEW     # OLD: a git worktree of the commit before, NEW: this tree

Both run in one virtual environment, with PYTHONPATH set to the checkout. OLD gets the option names of version 0.1.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from detector.config.aliases import RENAMED, VALUES  # noqa: E402

OLD_NAMES = {f"{path.rpartition('.')[0]}.{new}": path for path, new in RENAMED.items()}
RUN = ["schedule.steps=20", "run.num_workers=0", "run.log_every_steps=1", "run.save_every_steps=100", "run.device=cpu",
       "evaluate.every_epochs=0", "optim.ema_decay=0.9", "augment.color_jitter_prob=0.5", "run.num_val_images=1"]
CUT = """
import os, sys
import LOOP as loop
from detector.__main__ import main
original = loop.train_step
def watched(state, *args, **kwargs):
    result = original(state, *args, **kwargs)
    if state.step + 1 == 7:
        os.kill(os.getpid(), 15)
    return result
loop.train_step = watched
sys.exit(main(sys.argv[1:]))
"""


def old_name(override: str) -> str:
    key, _, value = override.partition("=")
    old_key = OLD_NAMES.get(key, key)
    values = {str(new).lower(): old for old, new in VALUES.get(old_key, {}).items()}
    return f"{old_key}={values.get(value, value)}"


class Checkout:
    def __init__(self, root: Path, is_old: bool, folder: Path):
        self.root, self.is_old, self.folder = root, is_old, folder
        folder.mkdir()

    def overrides(self, *words: str) -> list[str]:
        return [old_name(word) if self.is_old and "=" in word else word for word in words]

    def python(self, *words: str, expect: int = 0, **environment: str) -> str:
        done = subprocess.run([sys.executable, *words], cwd=self.root, capture_output=True, text=True, env={
            **os.environ, "PYTHONPATH": str(self.root), "OMP_NUM_THREADS": "1", **environment})
        assert done.returncode == expect, done.stdout + done.stderr
        return done.stdout

    def train(self, name: str, processes: int, cut: bool) -> dict:
        words = ["train", "configs/shapes/demo.yaml", *self.overrides(
            *RUN, f"run.name={name}", f"run.folder={self.folder}", f"data.root={self.folder.parent / 'shapes'}",
            f"data.cache={self.folder / 'cache'}")]
        if cut:
            script = self.folder / "cut.py"
            script.write_text(CUT.replace("LOOP", "detector.train" if self.is_old else "detector.training.loop"))
            self.python(str(script), *words, expect=75)
        self.python("-m", "launcher.cli", *words, "--processes", str(processes))
        run = self.folder / name
        content = torch.load(run / "checkpoints" / "step-00000020.pt", weights_only=True)
        metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        clocks = ("images_per_s", "data_wait", "memory_gib")
        results = json.loads((run / "results.json").read_text())
        return {"weights": digest(content["model"]), "moving average": digest(content["ema"]),
                "optimizer": digest(content["moments"]),
                "metrics.jsonl": [{"lr" if key == "rate" else key: value for key, value in line.items() if key not in clocks}
                                  for line in metrics],
                "results.json": {key: results[key] for key in ("metrics", "per_class", "images", "step")},
                "detections.json": hashlib.sha256((run / "detections.json").read_bytes()).hexdigest()}

    def check(self) -> dict:
        said = json.loads(self.python("-m", "launcher.cli", "check", "configs/shapes/demo.yaml", "--json", *self.overrides(
            *RUN, "run.name=checked", f"run.folder={self.folder}", f"data.root={self.folder.parent / 'shapes'}",
            f"data.cache={self.folder / 'cache'}")))
        for key in ("estimate", "peak_memory_gib", "disk", "shared_memory"):
            said["facts"].pop(key, None)
        if self.is_old:
            facts = said["facts"]
            facts["plan"]["lr"] = facts["plan"].pop("rate")
            facts["largest_padded_batch"] = facts.pop("largest_canvas")
        return said

    def scripts(self) -> dict[str, str]:
        rows = self.folder / "rows.txt"
        rows.write_text("seed=1 run.name=a\nseed=2 run.name=b\n")
        words = ["train", "configs/custom/bccd.yaml", "data.root=/data", f"run.folder={self.folder}", "--nodes", "2",
                 "--processes", "2", "--hours", "1", "--dry-run", "--cores", "2"]
        ways = {"torchrun": ["--on", "sbatch"], "srun": ["--on", "sbatch", "--template", "srun"],
                "array": ["--on", "sbatch", "--array", str(rows)], "submitit": ["--on", "slurm"]}
        texts = {}
        for name, way in ways.items():
            text = self.python("-m", "launcher.cli", *self.overrides(*words), *way)
            text = text.replace(sys.executable, "PYTHON")
            for path in (self.folder, self.root):
                text = text.replace(str(path), "ROOT" if path == self.root else "RUNS")
            text = text.replace("launcher.inside", "launcher.slurm_job")
            texts[name] = "\n".join(line for line in text.splitlines() if not re.match(r"\s*#(?!SBATCH)", line))
        return texts

    def state_dicts(self) -> dict[str, str]:
        code = """
import json, sys, dataclasses, torch
old = sys.argv[1] == "old"
if old:
    from detector.config.model import BODIES as names, Model
    from detector.model.build import build_model
else:
    from detector.config.model_schema import Model
    from detector.model.backbones import BACKBONES
    from detector.model.faster_rcnn import build_model
    names = tuple(BACKBONES)
from detector.config.schema import Evaluate
keys = {}
for name in names:
    for heads in ("ours" if old else "native", "torchvision"):
        with torch.device("meta"):
            model = build_model(Model(**{"body" if old else "backbone": name}, heads=heads), Evaluate(), 3)
        keys[f"{name} {'torchvision' if heads == 'torchvision' else 'native'}"] = {
            key: list(value.shape) for key, value in model.state_dict().items()}
print(json.dumps(keys))
"""
        return json.loads(self.python("-c", code, "old" if self.is_old else "new"))


def digest(value) -> str:
    """SHA-256 of nested dicts of tensors, names included."""
    total = hashlib.sha256()

    def add(name: str, part) -> None:
        if isinstance(part, dict):
            for key in part:
                add(f"{name}.{key}", part[key])
        else:
            total.update(name.encode() + part.contiguous().numpy().tobytes())
    add("", value)
    return total.hexdigest()


def compare(what: str, old, new) -> bool:
    if isinstance(old, dict) and isinstance(new, dict) and old.keys() == new.keys():
        return all([compare(f"{what}: {key}", old[key], new[key]) for key in old])
    if old == new:
        print(f"equal      {what}")
        return True
    print(f"DIFFERENT  {what}\n  old: {str(old)[:1500]}\n  new: {str(new)[:1500]}")
    return False


def main() -> int:
    with tempfile.TemporaryDirectory() as place:
        old, new = (Checkout(Path(root).resolve(), index == 0, Path(place) / name)
                    for index, (root, name) in enumerate(zip(sys.argv[1:3], ("old", "new"))))
        equal = []
        parts = sys.argv[3:] or ["states", "one", "two", "cut", "check", "scripts"]
        for part in parts:
            call = {"states": lambda side: side.state_dicts(), "one": lambda side: side.train("one", 1, False),
                    "two": lambda side: side.train("two", 2, False), "cut": lambda side: side.train("cut", 1, True),
                    "check": lambda side: side.check(), "scripts": lambda side: side.scripts()}[part]
            equal.append(compare(part, call(old), call(new)))
        print("all equal" if all(equal) else "NOT EQUAL")
        return not all(equal)


if __name__ == "__main__":
    sys.exit(main())
