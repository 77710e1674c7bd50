"""Bad input is one clear error line with exit status 2, and leaves no incomplete file."""

import json
import os
import resource
import shutil
import socket
import subprocess
import sys

import pytest
from processes import REPO, run

pytestmark = pytest.mark.whole


def fleet(*arguments: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "launcher.cli", *arguments], cwd=REPO, capture_output=True, text=True,
                          timeout=120, **options)


def detector(*arguments: str) -> subprocess.CompletedProcess:
    """Runs the detector as the launcher does, with stdout and stderr in one text."""
    (status,), output = run(["-m", "detector", *arguments])
    return subprocess.CompletedProcess(arguments, status, "", output)


def assert_refused(done: subprocess.CompletedProcess, folder, *parts: str) -> None:
    """Asserts one error with all these parts, status 2, and no run folder."""
    error = done.stderr.strip()
    assert done.returncode == 2, done.stdout + error
    assert "Traceback" not in error and error.startswith("error: ") and error.count("error: ") == 1, error
    for part in parts:
        assert part in error, error
    assert not (folder / "runs").exists(), "a run folder was written"


@pytest.mark.parametrize("override, parts", [
    ("data.format=coco data.root=/nowhere", ["no such folder", "/nowhere", "data.root"]),
    ("data.train=elsewhere", ["elsewhere", "no such file", "data.train"]),
    ("optim.rat=1", ["optim.rat", "no such option", "did you mean optim.lr"]),
    ("optim.lr=fast", ["optim.lr='fast'", "a number expected"]),
    ("model.backbone=resnet5_fpn", ["resnet5_fpn", "one of", "did you mean resnet50_fpn"]),
    ("data.classes=[circle,hexagon]", ["unknown class hexagon", "circle, square"]),
    ("model.weights=/nowhere.pth", ["/nowhere.pth", "no such file"]),
    ("run.device=cuda", ["no GPU", "run.device=cpu"]),
    ("evaluate.best_metric=mAP", ["evaluate.best_metric", "AP50"]),
])
def test_a_wrong_option(tiny, config_file, tmp_path, override, parts):
    if "cuda" in override and shutil.which("nvidia-smi"):
        pytest.skip("this machine has a GPU")
    assert_refused(detector("train", str(config_file), *tiny, "schedule.steps=1", *override.split()), tmp_path, *parts)


def test_no_such_config_file_and_broken_yaml(tiny, tmp_path):
    assert_refused(fleet("train", "custom/bcdd", *tiny), tmp_path, "custom/bcdd", "did you mean custom/bccd")
    (tmp_path / "broken.yaml").write_text("optim: {rate: 1\nseed: [")
    assert_refused(fleet("train", str(tmp_path / "broken.yaml"), *tiny), tmp_path, "broken YAML", "line")


def write_data(shapes_root, tmp_path, change) -> list[str]:
    """Copies the data set and changes its annotations; returns overrides that select the copy."""
    root = tmp_path / "changed"
    shutil.copytree(shapes_root, root)
    path = root / "annotations" / "instances_train.json"
    annotations = json.loads(path.read_text())
    change(annotations, root)
    path.write_text(json.dumps(annotations))
    return [f"data.root={root}"]


def test_an_empty_data_set(tiny, config_file, shapes_root, tmp_path):
    changed = write_data(shapes_root, tmp_path, lambda annotations, _: annotations.update(images=[], annotations=[]))
    assert_refused(detector("train", str(config_file), *tiny, *changed), tmp_path, "empty data set")


def test_an_unknown_class_in_val(tiny, config_file, shapes_root, tmp_path):
    val = json.loads((shapes_root / "annotations" / "instances_val.json").read_text())
    names = {category["id"]: category["name"] for category in val["categories"]}
    category_id = val["annotations"][0]["category_id"]

    def rename(annotations, _):
        next(category for category in annotations["categories"] if category["id"] == category_id)["name"] = "disc"
    changed = write_data(shapes_root, tmp_path, rename)
    done = detector("train", str(config_file), *tiny, *changed)
    assert_refused(done, tmp_path, f"unknown class {names[category_id]}", "disc")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_corrupt_image_ends_the_run_with_its_name_or_is_replaced(tiny, config_file, shapes_root, tmp_path, workers):
    """All images but one are truncated; of a step with four images, one at least is."""
    def truncate(_, root):
        for path in sorted((root / "train").iterdir())[:-1]:
            path.write_bytes(path.read_bytes()[:1000])
    changed = write_data(shapes_root, tmp_path, truncate)
    arguments = ["train", str(config_file), *tiny, *changed, f"run.num_workers={workers}", "schedule.steps=1"]
    done = fleet(*arguments)
    assert done.returncode == 2 and "corrupt image" in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert not list((tmp_path / "runs").rglob("*.pt"))
    done = detector(*arguments, "data.unreadable_images=grey", "data.val=[]")
    assert done.returncode == 0 and "unreadable image, replaced by a grey one" in done.stderr, done.stderr


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_missing_image_is_refused_before_the_first_step(tiny, config_file, shapes_root, tmp_path, split):
    names = []

    def remove(_, root):
        names.extend(path.name for path in sorted((root / split).iterdir())[-1:])
        (root / split / names[0]).unlink()
    changed = write_data(shapes_root, tmp_path, remove)
    done = fleet("train", str(config_file), *tiny, *changed)
    assert_refused(done, tmp_path, f"1 image of coco {split} is missing: ", names[0], "Add them")


def test_images_of_which_none_can_be_read_are_nothing_to_learn(tiny, config_file, shapes_root, tmp_path):
    def empty(_, root):
        for path in (root / "train").iterdir():
            path.write_bytes(b"")
    changed = write_data(shapes_root, tmp_path, empty)
    done = fleet("train", str(config_file), *tiny, *changed, "data.unreadable_images=grey", "data.val=[]")
    assert_refused(done, tmp_path, "nothing to learn: none of the 10 images", "can be read")


def test_a_full_disk_leaves_the_last_checkpoint_and_no_incomplete_file(tiny, config_file, tmp_path):
    def limit_file_size():  # like a full disk, this fails in the middle of a checkpoint
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))
    done = fleet("train", str(config_file), *tiny, "schedule.steps=2", preexec_fn=limit_file_size)
    assert done.returncode == 2 and "cannot write checkpoint" in done.stderr, done.stdout + done.stderr
    assert "Traceback" not in done.stderr and "MiB free" in done.stderr
    assert not list((tmp_path / "runs" / "tiny" / "checkpoints").iterdir())


def test_a_port_in_use(tiny, config_file, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = subprocess.run(
            [sys.executable, "-m", "detector", "train", str(config_file), *tiny], cwd=REPO, capture_output=True,
            text=True, timeout=120, env={**os.environ, "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2",
                                         "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(taken.getsockname()[1])})
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 2 and len(errors) == 1 and "port in use" in errors[0] and "Set MASTER_PORT" in errors[0]
    assert not (tmp_path / "runs").exists()


def test_more_processes_than_images_of_a_step(tiny, config_file, tmp_path):
    done = fleet("train", str(config_file), *tiny, "batch.size=1", "--processes", "2")
    assert_refused(done, tmp_path, "batch.size=1", "2 processes")
