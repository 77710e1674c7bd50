"""A run whose files were damaged, or whose data has changed, since it was stopped: it says so and goes on with what is whole."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import TINY, draw_shapes
from processes import run, train

pytestmark = pytest.mark.whole
STEPS = 6


def flip(path: Path, at: float) -> None:
    """Flips a bit of a file at this fraction of its length."""
    data = bytearray(path.read_bytes())
    data[int(at * len(data))] ^= 16
    path.write_bytes(data)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoints" / f"step-{STEPS:08d}.pt", weights_only=True)["model"]


@pytest.fixture(scope="module")
def stopped(tmp_path_factory) -> tuple[Path, list[str], Path]:
    """A run on two processes that was stopped after step 5, beside one that was not: their folder, overrides and config."""
    folder = tmp_path_factory.mktemp("damaged")
    root = draw_shapes(folder / "shapes")
    (folder / "empty.yaml").write_text("")
    overrides = [*TINY, f"schedule.steps={STEPS}", "run.save_every_steps=2", "evaluate.every_epochs=1", "data.format=coco",
                 f"data.root={root}", f"run.folder={folder}", f"data.cache={folder / 'cache'}"]
    train(0, folder / "empty.yaml", [*overrides, "run.name=uncut"], 2)
    train(5, folder / "empty.yaml", [*overrides, "run.name=cut"], 2)
    return folder, overrides, folder / "empty.yaml"


def test_a_flipped_bit_costs_the_steps_since_the_checkpoint_before_and_moved_data_is_no_change(stopped):
    folder, overrides, config = stopped
    shutil.copytree(folder / "cut", folder / "flipped")
    damaged = folder / "flipped" / "checkpoints" / "step-00000005.pt"
    flip(damaged, 0.4)
    best = damaged.with_name("best.pt")
    best_step = torch.load(best, weights_only=True)["step"]
    flip(best, 0.6)
    shutil.copytree(folder / "shapes", folder / "moved")
    output = train(0, config, [*overrides, f"data.root={folder / 'moved'}", "run.name=flipped"], 2)
    assert "has changed since step" not in output
    assert f"{damaged} is damaged" in output and "it is skipped" in output and "step-00000004.pt, after step 4" in output
    assert f"{best} is damaged" in output and best_step == 3
    for name, value in weights(folder / "uncut").items():
        assert torch.equal(value, weights(folder / "flipped")[name]), name
    assert torch.load(best, weights_only=True)["step"] == STEPS


def test_changed_data_is_said_in_a_line_for_each_part(stopped):
    folder, overrides, config = stopped
    shutil.copytree(folder / "cut", folder / "changed")
    for split, keep in (("train", 9), ("val", 4)):
        path, = (folder / "shapes").rglob(f"*{split}*.json")
        content = json.loads(path.read_text())
        content["images"] = content["images"][:keep]
        ids = {image["id"] for image in content["images"]}
        content["annotations"] = [row for row in content["annotations"] if row["image_id"] in ids]
        path.write_text(json.dumps(content))
    statuses, output = run(["-m", "detector", "train", str(config), *overrides, "run.name=changed"])
    assert statuses == [0], output
    lines = [line for line in output.splitlines() if "has changed since step 5: " in line]
    assert len(lines) == 2 and "the training data" in lines[0] and "10 images with" in lines[0] and "9 images with" in lines[0]
    assert "the validation data" in lines[1] and "5 images with" in lines[1] and "4 images with" in lines[1]
