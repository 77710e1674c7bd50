"""A run folder as a training leaves it, without a training: config, numbers, plots and pictures."""

import json
from dataclasses import asdict
from pathlib import Path

from PIL import Image

from detector.config.load import load_config, to_yaml
from detector.run.files import to_json
from detector.run.usage import Start

CLASSES = ("cat", "a/b (old)", "a_b _old_", "Größe")  # the second and the third are equal without special characters


def train_line(step: int, loss: float | None = None) -> dict:
    return {"kind": "train", "step": step, "epoch": step / 10, "loss": 3.0 / step if loss is None else loss, "loss_box_reg": 0.5,
            "lr": 0.01, "images_per_s": 4.0}


def evaluation_line(step: int, metric: float) -> dict:
    return {"kind": "evaluation", "step": step, "AP": metric, "loss": 1.0,
            "per_class": {name: {"AP": metric, "AP50": -1.0} for name in CLASSES}}


LINES = [train_line(1), train_line(2, float("nan")), evaluation_line(2, 0.25), train_line(3), train_line(4), evaluation_line(4, 0.125)]


def make_run(folder: Path, lines: list[dict] = LINES, state: str = "finished", overrides: tuple[str, ...] = ()) -> Path:
    """Writes the files of a run with these logged lines, and returns its folder."""
    for name in ("plots", "pictures", "checkpoints"):
        (folder / name).mkdir(parents=True)
        Image.new("RGB", (8, 6), (9, 99, 199)).save(folder / name / "one.png")
    (folder / "checkpoints" / "one.png").unlink()
    (folder / "pictures" / "one.png").rename(folder / "pictures" / "one.jpg")
    (folder / "config.yaml").write_text(to_yaml(load_config("shapes/demo", [f"run.name={folder.name}", *overrides])))
    (folder / "environment.json").write_text(json.dumps({"command": ["fleet-rcnn"], "torch": "2.9", "commit": "1234abcd", "gpus": []}))
    (folder / "results.json").write_text('{"metrics": {"AP": 0.125}}')
    (folder / "log.txt").write_text("a line\n")
    (folder / "status.json").write_text(json.dumps({"state": state, "step": 4}))
    start = Start(at=1000.0, until=1040.0, ranks=1, gpus=0, device="cpu", cores=1, global_batch=4, first_step=0, step=4, seconds={})
    (folder / "usage.json").write_text(json.dumps({"starts": [asdict(start)]}))
    write_lines(folder, lines)
    return folder


def write_lines(folder: Path, lines: list[dict]) -> None:
    (folder / "metrics.jsonl").write_text("".join(to_json(line) + "\n" for line in lines))
