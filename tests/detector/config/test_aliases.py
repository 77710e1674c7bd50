"""Old names of options and habits of other tools: each works, or is answered with the option of today, and is told once."""

import json
import os
import subprocess
import sys

import pytest
import yaml
from conftest import REPO

from detector.config.aliases import (
    ADVICE,
    HABITS,
    OLD_NAMES,
    PRINTED_NOTES,
    VALUES,
    advice_for_flag,
    print_once,
    translate,
    translate_saved,
)
from detector.config.load import from_dict, load_config, to_dict, to_yaml
from detector.config.options import all_options
from detector.config.schema import Config
from detector.config.sections import flatten
from detector.errors import BadInput

OLD = REPO / "tests" / "fixtures" / "run_0_1"  # files of version 0.1
OLD_OPTIONS = json.loads((OLD / "options.json").read_text())  # path -> default, choices, low, high
SAVED = yaml.safe_load((OLD / "config.yaml").read_text())  # states every option
TODAY = all_options()


@pytest.fixture(autouse=True)
def nothing_printed_yet(monkeypatch):
    monkeypatch.setenv(PRINTED_NOTES, "")
    monkeypatch.delenv("RANK", raising=False)


def value_of(config: Config, path: str):
    for name in path.split("."):
        config = getattr(config, name)
    return config


def tree_of(path: str, value) -> dict:
    for name in reversed(path.split(".")):
        value = {name: value}
    return value


def translated(path: str, value) -> tuple[str, object]:
    """Returns path and value of today for one old option."""
    tree, _ = translate(tree_of(path, value), "test")
    (today, new_value), = flatten(tree).items()
    return today, new_value


# Version 0.1: every option

# Their defaults follow from the data today.
NOW_AUTO = ("batch.size", "optim.rate", "augment.short_sides", "schedule.epochs", "schedule.milestones", "evaluate.every_epochs",
            "evaluate.short_side", "data.format")


def test_every_option_of_version_0_1_exists_today_or_has_an_alias():
    assert len(OLD_OPTIONS) > 100
    gone = [path for path in OLD_OPTIONS if OLD_NAMES.get(path, path) not in TODAY and path != "recipe"]
    assert gone == []


def test_every_alias_is_of_a_name_that_is_not_used_any_more():
    assert [old for old in OLD_NAMES if old not in OLD_OPTIONS] == []
    assert [old for old in {**OLD_NAMES, **HABITS} if old in TODAY and old != "seed"] == []
    assert [new for new in {**OLD_NAMES, **HABITS}.values() if new not in TODAY] == []
    assert [old for old in VALUES if old not in OLD_OPTIONS and old not in HABITS] == []
    assert [name for name in ADVICE if name in TODAY or name != name.lower()] == []


@pytest.mark.parametrize("path", [path for path in OLD_OPTIONS if path != "recipe" and path not in NOW_AUTO])
def test_the_default_of_every_old_option_is_the_default_of_its_successor(path):
    today, value = translated(path, OLD_OPTIONS[path]["default"])
    default = TODAY[today].default
    assert value_of(from_dict(tree_of(today, value), "default"), today) == default
    as_text, text = translated(path, str(OLD_OPTIONS[path]["default"]).lower()) if default in (True, False, -1.0) else (today, value)
    assert value_of(from_dict(tree_of(as_text, text), "as YAML gives it"), today) == default


@pytest.mark.parametrize("path", [path for path, option in OLD_OPTIONS.items() if option["choices"] and path != "recipe"])
def test_every_choice_of_version_0_1_is_a_choice_today(path):
    values = set()
    for choice in OLD_OPTIONS[path]["choices"]:
        today, value = translated(path, choice)
        values.add(value_of(from_dict(tree_of(today, value), "choice"), today))
    assert len(values) == len(OLD_OPTIONS[path]["choices"]), "two old choices became one"


@pytest.mark.parametrize("path", [path for path, option in OLD_OPTIONS.items() if option["low"] is not None])
def test_every_bound_of_version_0_1_is_allowed_today(path):
    for edge in ("low", "high"):
        if OLD_OPTIONS[path][edge] is not None:
            today, value = translated(path, OLD_OPTIONS[path][edge])
            assert value_of(from_dict(tree_of(today, value), edge), today) == OLD_OPTIONS[path][edge]


@pytest.mark.parametrize("old, value, today, meaning", [
    ("optim.decay_norms", "true", "optim.weight_decay_norm", -1.0), ("optim.decay_norms", "False", "optim.weight_decay_norm", 0.0),
    ("optim.decay_biases", "false", "optim.weight_decay_bias", 0.0), ("batch.frame", "chunk", "batch.crop_to_group", True),
    ("batch.frame", "own", "batch.crop_to_group", False), ("batch.canvases", "own", "batch.pad_to", "batch"),
    ("batch.canvases", "group", "batch.pad_to", "group"), ("model.heads", "ours", "model.heads", "native"),
    ("model.heads", "torchvision", "model.heads", "torchvision"), ("optim.rate", "0.5", "optim.lr", 0.5)])
def test_an_old_value_on_the_command_line_and_in_a_file_means_the_same_as_before(old, value, today, meaning, tmp_path):
    static = ["batch.aspect_ratio_groups=static", "augment.hflip_prob=0"] if meaning is True else []
    assert value_of(load_config("shapes/demo", [*static, f"{old}={value}"]), today) == meaning
    (tmp_path / "old.yaml").write_text(yaml.safe_dump({"base": "shapes/demo", **tree_of(old, value)}))
    assert value_of(load_config(str(tmp_path / "old.yaml"), static), today) == meaning


def test_old_values_under_new_names_are_refused():
    for override in ("optim.weight_decay_norm=true", "batch.crop_to_group=chunk", "batch.pad_to=own"):
        with pytest.raises(BadInput):
            load_config("shapes/demo", [override])


# Version 0.1: whole configs

def test_a_config_file_of_a_run_of_version_0_1_is_read_and_told_in_one_note(capfd):
    config = load_config(str(OLD / "config.yaml"))
    assert (config.optim.lr, config.model.backbone, config.run.name) == (0.02, "resnet18_fpn", "old")
    assert (config.augment.min_size, config.evaluate.best_metric, config.optim.weight_decay_norm) == ((64,), "AP50", -1)
    assert capfd.readouterr().err.splitlines() == ["note: a config.yaml saved by version 0.1 is read with the option names of today"]
    assert from_dict(SAVED, "saved") == config
    assert load_config(str(OLD / "config.yaml"), ["optim.rate=1"]).optim.lr == 1


def test_the_config_in_a_checkpoint_of_version_0_1_has_the_values_and_types_of_today():
    saved = json.loads((OLD / "checkpoint.json").read_text())["config"]
    flat = flatten(translate_saved(saved, "checkpoint"))
    today = flatten(to_dict(from_dict(saved, "checkpoint")))
    assert flat == {path: today[path] for path in flat} and set(today) - set(flat) == {
        "run.plots", "optim.optimizer", "optim.backbone_lr_factor", "data.images", "batch.repeat_threshold",
        "augment.vflip_prob", "augment.transpose_prob", "augment.object_crop_prob", "evaluate.tta"}
    assert [type(flat[path]) for path in flat] == [type(today[path]) for path in flat]
    assert saved["optim"]["rate"] == 0.02, "the argument is left as it is"


def test_the_original_recipe_of_version_0_1_is_that_of_today(capfd):
    before = from_dict(yaml.safe_load((OLD / "original.yaml").read_text()), "original")
    for overrides in (["recipe=original", "evaluate.nms_iou=0.45"], ["evaluate.nms_thresh=0.45", "recipe=original"]):
        assert load_config("shapes/demo", overrides) == before
    assert "recipe: original is now written as base: recipe/original" in capfd.readouterr().err
    assert load_config(str(OLD / "original.yaml")) == before, "every option is stated, recipe: original adds nothing"


# Mixtures and mistakes

def test_old_and_new_names_in_layers_follow_the_order_of_the_layers(tmp_path):
    (tmp_path / "below.yaml").write_text("data: {format: shapes}\noptim: {rate: 1, decay: 0.1}\n")
    (tmp_path / "above.yaml").write_text("base: below.yaml\noptim: {lr: 2}\n")
    name = str(tmp_path / "above.yaml")
    assert (load_config(name).optim.lr, load_config(name).optim.weight_decay) == (2, 0.1)
    assert load_config(name, ["optim.rate=3"]).optim.lr == 3
    assert load_config(name, ["optim.lr=4", "lr=5", "optim.rate=6"]).optim.lr == 6


@pytest.mark.parametrize("text", ["optim: {rate: 1, lr: 2}", "lr: 1\noptim: {lr: 2}", "SOLVER: {BASE_LR: 1}\noptim: {rate: 2}"])
def test_one_option_under_two_names_in_one_file_is_refused(text, tmp_path):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(BadInput, match="mine.yaml: .* and optim.lr are the same option; leave .* out"):
        load_config(str(tmp_path / "mine.yaml"))


def test_a_habit_beside_a_section_that_is_none_is_reported_and_not_lost(tmp_path):
    (tmp_path / "mine.yaml").write_text("data: {format: shapes}\nlr: 1\noptim: fast\n")
    with pytest.raises(BadInput, match="optim='fast': this is a section"):
        load_config(str(tmp_path / "mine.yaml"))


def test_a_mistake_in_an_old_option_is_reported_under_its_new_name():
    with pytest.raises(BadInput, match="optim.lr='fast': a number expected"):
        load_config("shapes/demo", ["optim.rate=fast"])


# Other tools

@pytest.mark.parametrize("override, path, value", [
    ("lr=0.01", "optim.lr", 0.01), ("lr0=0.01", "optim.lr", 0.01), ("learning_rate=0.01", "optim.lr", 0.01),
    ("epochs=3", "schedule.epochs", 3), ("batch_size=4", "batch.size", 4), ("workers=3", "run.num_workers", 3),
    ("backbone=resnet34_fpn", "model.backbone", "resnet34_fpn"), ("momentum=0.8", "optim.momentum", 0.8),
    ("optimizer=SGD", "optim.optimizer", "sgd"), ("optimizer=sgd", "optim.optimizer", "sgd"),
    ("optimizer=AdamW", "optim.optimizer", "adamw"), ("optim.name=adamw", "optim.optimizer", "adamw"),
    ("name=first", "run.name", "first"), ("project=out", "run.folder", "out"), ("patience=5", "schedule.early_stopping_patience", 5),
    ("SOLVER.BASE_LR=0.01", "optim.lr", 0.01), ("SOLVER.MAX_ITER=90", "schedule.steps", 90),
    ("SOLVER.IMS_PER_BATCH=4", "batch.size", 4), ("OUTPUT_DIR=out", "run.folder", "out"), ("SEED=4", "seed", 4)])
def test_names_of_other_tools_work_and_are_told(override, path, value, capfd):
    config = load_config("shapes/demo", [override])
    assert value_of(config, path) == value
    key = override.partition("=")[0]
    assert capfd.readouterr().err == f"note: {key} is called {path} here\n"
    assert load_config("shapes/demo", [f"{path}={value}"]) == config
    assert capfd.readouterr().err == ""


def test_sections_of_other_tools_work_in_a_file_and_what_is_unknown_in_them_is_reported(tmp_path):
    (tmp_path / "mine.yaml").write_text("data: {format: shapes}\nSOLVER: {BASE_LR: 0.5, MAX_ITER: 7}\nepochs: 3\n")
    config = load_config(str(tmp_path / "mine.yaml"))
    assert (config.optim.lr, config.schedule.steps, config.schedule.epochs) == (0.5, 7, 3)
    (tmp_path / "mine.yaml").write_text("data: {format: shapes}\nSOLVER: {BASE_LR: 0.5, STEPS: 7}\n")
    with pytest.raises(BadInput, match=r"SOLVER.STEPS: no such option; set schedule.milestones"):
        load_config(str(tmp_path / "mine.yaml"))


@pytest.mark.parametrize("override, answer", [
    ("imgsz=640", "imgsz: no such option; set augment.min_size=[640] augment.max_size=0 evaluate.min_size=640 evaluate.max_size=0"),
    ("resume=true", "resume: no such option; nothing needs to be set; the same command resumes a run"),
    ("run.resume=true", "run.resume: no such option; nothing needs to be set"),
    ("amp=true", "amp: no such option; set run.precision=bf16"), ("num_classes=4", "num_classes: no such option; nothing needs"),
    ("MODEL.ROI_HEADS.NUM_CLASSES=4", "MODEL.ROI_HEADS.NUM_CLASSES: no such option; nothing needs"),
    ("pretrained=true", "pretrained: no such option; set model.weights="), ("freeze=2", "freeze: no such option; set model.frozen_stages"),
    ("INPUT.MIN_SIZE_TRAIN=[640]", "INPUT.MIN_SIZE_TRAIN: no such option; set augment.min_size")])
def test_names_without_a_counterpart_are_answered_with_what_to_do(override, answer):
    with pytest.raises(BadInput) as caught:
        load_config("shapes/demo", [override])
    assert answer in str(caught.value)


@pytest.mark.parametrize("name", [name for name in ADVICE])
def test_advice_names_options_that_exist(name):
    words = [word.rstrip(",;") for word in ADVICE[name].replace("{value}", "640").split()]
    settings = [word for word in words if "=" in word and "." in word.split("=")[0] and word != "model.weights="]
    assert all(setting.partition("=")[0] in TODAY for setting in settings)
    if "such as" not in ADVICE[name]:  # those that can be copied as they are
        load_config("shapes/demo", [setting for setting in settings if not setting.startswith("model.weights")])


@pytest.mark.parametrize("flag, answer", [
    ("--lr", "write optim.lr=..."), ("--lr=0.1", "write optim.lr=0.1"), ("--batch-size=4", "write batch.size=4"),
    ("--epochs", "write schedule.epochs=..."), ("--resume", ADVICE["resume"]), ("--loud", ""),
    ("--imgsz=320", ADVICE["imgsz"].replace("{value}", "320"))])
def test_flags_of_other_tools_are_answered(flag, answer):
    assert advice_for_flag(flag) == answer


# Told once

def test_a_note_is_printed_once_in_a_process_and_its_children(capfd):
    for _ in range(2):
        load_config("shapes/demo", ["optim.rate=0.1", "epochs=2"])
    assert capfd.readouterr().err.splitlines() == ["note: optim.rate is now called optim.lr", "note: epochs is called schedule.epochs here"]
    code = "from detector import load_config; load_config('shapes/demo', ['optim.rate=0.1', 'optim.decay=0.1'])"
    child = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True)
    assert child.stderr == "note: optim.decay is now called optim.weight_decay\n"
    assert "\n" not in os.environ[PRINTED_NOTES], "a newline is not safe in an environment variable of a job"


def test_epochs_without_effect_are_told_with_the_option_that_decides(tmp_path, capfd, monkeypatch):
    (tmp_path / "below.yaml").write_text("data: {format: shapes}\nschedule: {steps: 90, epochs: 3}")
    (tmp_path / "mine.yaml").write_text("base: below.yaml")
    for override in ("schedule.epochs=10", "epochs=10"):
        monkeypatch.setenv(PRINTED_NOTES, "")
        assert load_config(str(tmp_path / "mine.yaml"), [override]).schedule.steps == 90
        assert capfd.readouterr().err.splitlines()[-1] == (
            "note: schedule.epochs=10 has no effect: schedule.steps=90 of the config decides how long the run is. To let the epochs "
            "decide, add schedule.steps=0")
    monkeypatch.setenv(PRINTED_NOTES, "")
    for overrides in ([], ["schedule.epochs=10", "schedule.steps=0"], ["schedule.steps=80", "schedule.epochs=10"], ["schedule.gamma=0.2"]):
        load_config(str(tmp_path / "mine.yaml"), overrides)
    load_config("shapes/demo", ["schedule.epochs=10"])
    assert capfd.readouterr().err == ""


def test_a_run_of_an_earlier_version_with_val_null_has_no_validation_images(tmp_path):
    config = to_dict(load_config("shapes/demo"))
    config["data"]["val"] = [""]
    assert from_dict(config, "the checkpoint").data.val == ()
    (tmp_path / "mine.yaml").write_text('data: {val: [""]}')
    with pytest.raises(BadInput, match="an item is empty"):
        load_config(str(tmp_path / "mine.yaml"))


def test_only_rank_0_prints_a_note(capfd, monkeypatch):
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "7")
    print_once(["a note"])
    assert capfd.readouterr().err == ""


def test_each_file_with_old_names_is_told(tmp_path, capfd):
    for name in ("a", "b"):
        (tmp_path / f"{name}.yaml").write_text("data: {format: shapes}\noptim: {rate: 1}\n")
        load_config(str(tmp_path / f"{name}.yaml"))
    assert capfd.readouterr().err.splitlines() == [f"note: {tmp_path}/{name}.yaml: optim.rate is now called optim.lr" for name in "ab"]


@pytest.mark.slow
def test_the_launcher_and_the_process_that_it_starts_tell_a_note_once(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "launcher.cli", "train", "shapes/demo", "optim.rate=0.1", "data.format=coco", "data.root=/nowhere",
         f"run.folder={tmp_path}", "run.device=cpu"], cwd=REPO, capture_output=True, text=True)
    assert done.returncode == 2 and "data.root=/nowhere: no such folder" in done.stderr, done.stderr
    assert done.stderr.count("optim.rate is now called optim.lr") == 1


def test_a_config_written_today_has_no_old_name(tmp_path, capfd):
    (tmp_path / "config.yaml").write_text(to_yaml(load_config(str(OLD / "config.yaml"))))
    capfd.readouterr()
    load_config(str(tmp_path / "config.yaml"))
    assert capfd.readouterr().err == ""
