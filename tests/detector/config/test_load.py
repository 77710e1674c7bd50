"""Loading a config file with overrides, and the error message for every kind of mistake."""

import dataclasses
import re
from pathlib import Path

import pytest

from detector.config.load import (
    apply_override,
    from_dict,
    load_config,
    read_with_base,
    run_folder,
    to_dict,
    to_yaml,
)
from detector.config.options import all_options
from detector.config.schema import Config
from detector.config.sections import flatten, merge
from detector.errors import BadInput


def write(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return str(path)


def error_of(*overrides: str) -> str:
    """Returns the error message of these overrides on top of a config without mistakes."""
    with pytest.raises(BadInput) as caught:
        load_config("shapes/demo", list(overrides))
    return str(caught.value)


def value_of(config: Config, path: str):
    for name in path.split("."):
        config = getattr(config, name)
    return config


def tree(path: str, value) -> dict:
    """("optim.lr", 1) -> {"optim": {"lr": 1}}"""
    for name in reversed(path.split(".")):
        value = {name: value}
    return value


# Where a value comes from

def test_an_empty_config_has_the_defaults_and_is_named_after_its_file(tmp_path):
    assert from_dict({}, "nothing") == Config()
    name = write(tmp_path / "mine.yaml", "")
    config = load_config(name, ["data.format=shapes"])
    assert config.run.name == "mine" and config.optim == Config().optim
    assert load_config(name, ["data.format=shapes", "run.name=other"]).run.name == "other"


def test_a_later_override_wins_over_an_earlier_one_the_file_and_its_base(tmp_path):
    write(tmp_path / "below.yaml", "data: {format: shapes}\noptim: {lr: 1, momentum: 0.1, weight_decay: 0.1}")
    name = write(tmp_path / "above.yaml", "base: below.yaml\noptim: {lr: 2, momentum: 0.2}")
    config = load_config(name, ["optim.lr=3", "optim.lr=4", "model.rpn.batch_size_per_image=64"])
    assert (config.optim.lr, config.optim.momentum, config.optim.weight_decay) == (4, 0.2, 0.1)
    assert config.model.rpn.batch_size_per_image == 64, "in a section that no file mentions"


def test_sections_are_merged_and_lists_replaced():
    below = {"a": {"x": 1, "y": [1, 2, 3]}, "b": 1, "c": {"z": 1}}
    above = {"a": {"y": [9]}, "b": {"now": "a section"}, "c": 2}
    assert merge(below, above) == {"a": {"x": 1, "y": [9]}, "b": {"now": "a section"}, "c": 2}
    assert merge({}, above) == above and merge(below, {}) == below
    assert below["a"] == {"x": 1, "y": [1, 2, 3]}, "merging writes to neither"


def test_a_base_is_relative_to_the_file_and_may_have_a_base(tmp_path, monkeypatch):
    write(tmp_path / "base" / "lowest.yaml", "data: {format: shapes}\nseed: 1\nbatch: {size: 4}")
    write(tmp_path / "base" / "middle.yaml", "base: lowest.yaml\nseed: 2")
    name = write(tmp_path / "top.yaml", "base: base/middle.yaml")
    monkeypatch.chdir(tmp_path / "base")  # the working folder does not matter
    config = load_config(name)
    assert (config.seed, config.batch.size, config.run.name) == (2, 4, "top")


@pytest.mark.parametrize("files", [{"a": "a"}, {"a": "b", "b": "a"}, {"a": "b", "b": "c", "c": "b"}])
def test_bases_in_a_circle_are_named(tmp_path, files):
    for name, base in files.items():
        write(tmp_path / f"{name}.yaml", f"base: {base}.yaml")
    with pytest.raises(BadInput, match="leads back to itself") as caught:
        load_config(str(tmp_path / "a.yaml"))
    assert all(f"{name}.yaml" in str(caught.value) for name in files)


@pytest.mark.parametrize("base", ["gone.yaml", "5", "[a.yaml, b.yaml]", "{a: b}", "."])
def test_a_base_that_is_no_file_is_named_with_the_file_that_asks_for_it(tmp_path, base):
    write(tmp_path / "mine.yaml", f"base: {base}")
    name = write(tmp_path / "other.yaml", "base: mine.yaml")
    with pytest.raises(BadInput, match=re.escape(base.strip("[{").partition(",")[0].partition(":")[0])) as caught:
        load_config(name)
    assert "mine.yaml" in str(caught.value)


def test_a_base_may_be_a_recipe_unless_there_is_a_file_beside(tmp_path):
    for base in ("shapes/demo", "configs/shapes/demo.yaml"):
        config = load_config(write(tmp_path / "mine.yaml", f"base: {base}\nseed: 4"))
        assert config.seed == 4 and config.model == load_config("shapes/demo").model
    write(tmp_path / "shapes" / "demo", "data: {format: shapes}\nseed: 9")
    assert load_config(write(tmp_path / "mine.yaml", "base: shapes/demo")).seed == 9


@pytest.mark.parametrize("content, pattern", [
    *[(text, r"broken YAML in .*mine\.yaml.*line \d") for text in (b"optim: {lr: 1", b"optim:\n\tlr: 1",
                                                                 b"a: b: c", b"key: @")],
    *[(text, r"mine\.yaml: options expected, such as") for text in (b"- seed", b"seed", b"3")],
    (b"\xef\xbb\xbf\n# \xe2\x82\xac\ndata: {root: /a/${DATA:-x y}/${B}, val: 0.2}",
     r"broken YAML .*\^\. Put /a/\$\{DATA:-x y\}/\$\{B\} in quotes: \"/a/\$\{DATA:-x y\}/\$\{B\}\"$"),
    (b"data: {root: \"${DATA}\", val: [}", r"broken YAML .*\^$"),
    (b"seed: \xff\xfe", r"mine\.yaml is not a text file"),
    (None, r"cannot read config file .*mine\.yaml")])
def test_a_file_that_is_no_config_is_named_with_the_reason(tmp_path, content, pattern):
    path = tmp_path / "mine.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadInput, match=pattern):
        read_with_base(path)


def test_keys_with_dots_are_options_of_their_sections(tmp_path):
    write(tmp_path / "below.yaml", "data.format: shapes\noptim.lr: 0.5\nmodel: {rpn.nms_thresh: 0.6, rpn: {batch_size_per_image: 8}}")
    config = load_config(write(tmp_path / "mine.yaml", "base: below.yaml\noptim: {momentum: 0.1}\nSOLVER.GAMMA: 0.3\noptim.rate: 0.2"))
    assert (config.optim.lr, config.optim.momentum, config.schedule.gamma) == (0.2, 0.1, 0.3)
    assert (config.model.rpn.nms_thresh, config.model.rpn.batch_size_per_image) == (0.6, 8)
    for mistake in ("optim.lrr: 1", "optim..lr: 1", "optim.: 1"):
        with pytest.raises(BadInput, match=f"{mistake[:-3]}: no such option"):
            load_config(write(tmp_path / "mine.yaml", f"base: below.yaml\n{mistake}"))


@pytest.mark.parametrize("text, option", [
    ("optim.lr: 1\noptim: {lr: 2}", "optim.lr"), ("optim: {lr: 2}\noptim.lr: 1", "optim.lr"), ("optim: 3\noptim.lr: 1", "optim"),
    ("model: {rpn.nms_thresh: 0.5, rpn: {nms_thresh: 0.5}}", "model.rpn.nms_thresh")])
def test_an_option_with_a_dot_and_in_its_section_is_stated_twice(tmp_path, text, option):
    with pytest.raises(BadInput, match=f"mine.yaml: stated twice, with a dot and as a section: {option}; leave one out"):
        load_config(write(tmp_path / "mine.yaml", text))


# Types

@pytest.mark.parametrize("override, value", [
    ("optim.lr=1e-2", 0.01), ("optim.lr=1E-2", 0.01),  # YAML 1.1 would read texts here
    ("optim.lr=5.e-4", 0.0005), ("optim.lr=1", 1.0), ("optim.lr='0.5'", 0.5),
    ("batch.size=16.0", 16), ("batch.size=1e2", 100), ("batch.size='8'", 8),
    ("run.channels_last=false", False), ("run.channels_last=False", False),
    ("run.name=007", "007"), ("run.name=1e-2", "1e-2"),    # a text stays as it was written
    ("data.root=/data/a #2", "/data/a #2"), ("data.root='/data/a #2'", "/data/a #2"),  # a shell has removed comments
    ("data.root=", ""), ("data.root=/data/a=b", "/data/a=b"),  # only the first = parts key and value
    ("data.train=train2017", ("train2017",)),              # one item needs no brackets
    ("data.train=16:20", ("16:20",)),                      # YAML 1.1 would read 980, as in hours and minutes
    ("data.train=[2007, 2012]", ("2007", "2012")), ("data.classes=[yes, no, 1]", ("yes", "no", "1")),
    ("data.val=", ()), ("data.val=[]", ()), ("data.val=null", ()), ("data.val=~", ()), ("data.classes=~", ()),
    ("data.classes=[null, ~]", ("null", "~")),             # in a list they are names
    ("schedule.milestones=[1e1, 11]", (10.0, 11.0)),
    ("model.anchor_sizes=[[32, 64]]", ((32.0, 64.0),)),
    ("model.anchor_sizes=[8, 16, 32, 64, 128]", ((8.0,), (16.0,), (32.0,), (64.0,), (128.0,))),
])
def test_a_value_gets_the_type_of_its_option(override, value):
    found = value_of(load_config("shapes/demo", [override]), override.partition("=")[0])
    assert found == value
    assert type(found) is type(value)
    assert not isinstance(value, tuple) or [type(item) for item in found] == [type(item) for item in value]


def test_a_file_means_the_same_as_an_override(tmp_path):
    config = load_config(write(tmp_path / "mine.yaml", "\n".join([
        "data: {format: shapes, classes: [yes, no], train: 16:20, val: }", "data.images: null", "optim: {lr: 1e-2, weight_decay: 5e-4}",
        "run: {name: 007, channels_last: false}"])))
    assert (config.optim.lr, config.optim.weight_decay) == (0.01, 0.0005)
    assert (config.data.classes, config.data.train, config.data.val, config.data.images) == (("yes", "no"), ("16:20",), (), "")
    assert (config.run.name, config.run.channels_last) == ("007", False)
    unset = load_config(write(tmp_path / "mine.yaml", "data: {format: shapes, val: null, classes: ~}"))
    assert (unset.data.val, unset.data.classes) == ((), ())


@pytest.mark.parametrize("override, expected", [
    ("optim.lr=fast", "a number expected"),
    ("optim.lr=true", "a number expected"),
    ("optim.lr=", "a number expected"),
    ("optim.lr=[1]", "a number expected"),
    ("optim.lr=nan", "a number expected"),
    ("optim.lr=.inf", "a number expected"),
    ("optim.lr=1e999", "a number expected"),
    ("batch.size=1.5", "a whole number expected"),
    ("batch.size=true", "a whole number expected"),
    ("batch.size=many", "a whole number expected"),
    ("batch.size=", "a whole number expected"),
    ("batch.size=inf", "a whole number expected"),
    ("run.channels_last=1", "true or false expected"),
    ("run.channels_last=maybe", "true or false expected"),
    ("run.channels_last=", "true or false expected"),
    ("run.name=[a]", "a text expected"),
    ("run.name={a: b}", "a text expected"),
    ("data.classes=[[cat]]", "a text expected"),
    ("data.classes=[cat, ' ']", "an item is empty; write a text, or [] for an empty list"),
    ("data.train=['']", "an item is empty; write a text"),
    ("augment.min_size=[600, wide]", "a whole number expected"),
    ("schedule.milestones={a: 1}", "a number expected"),
    ("model.anchor_sizes=[[small]]", "a number expected"),
])
def test_a_value_of_another_type_is_named_with_what_is_expected(override, expected):
    path = override.partition("=")[0]
    assert re.search(rf"{re.escape(path)}=.*: {re.escape(expected)}", error_of(override))


def test_the_value_is_shown_as_it_was_understood_and_no_longer_than_a_line():
    assert "data.classes=[['cat'], 'dog']: a text expected" in error_of("data.classes=[[cat], dog]")
    assert len(error_of(f"optim.lr={'9e' * 500}")) < 150


# What is allowed: from the schema itself, so that no option is forgotten

BOUNDED = [(path, edge, field.metadata[edge]) for path, field in all_options().items() for edge in ("low", "high")
           if field.metadata[edge] is not None]
WITH_CHOICES = [(path, field.metadata["choices"]) for path, field in all_options().items() if field.metadata["choices"]]


@pytest.mark.parametrize("path, edge, bound", BOUNDED)
def test_a_bound_itself_is_allowed_and_what_lies_beyond_it_is_not(path, edge, bound):
    assert value_of(from_dict(tree(path, bound), "bound"), path) == bound
    beyond, says = (bound - 1, "at least") if edge == "low" else (bound + 1, "at most")
    with pytest.raises(BadInput, match=rf"{path}={beyond}: .*{says} {bound}"):
        from_dict(tree(path, beyond), "beyond")


@pytest.mark.parametrize("path", [path for path, field in all_options().items() if field.type in (int, float)])
def test_what_is_no_number_is_refused_everywhere(path):
    for value in (float("nan"), float("inf"), "nan", "-inf", True):
        with pytest.raises(BadInput, match=f"{path}=.*number expected"):
            from_dict(tree(path, value), "not a number")


@pytest.mark.parametrize("path, choices", WITH_CHOICES)
def test_each_choice_is_allowed_and_others_list_them(path, choices):
    for choice in choices:
        assert value_of(from_dict(tree(path, choice), "choice"), path) == choice
    with pytest.raises(BadInput, match=f"{path}='xyz': one of {', '.join(choices)}"):
        from_dict(tree(path, "xyz"), "no choice")


def test_every_default_is_allowed_and_every_option_has_a_description():
    assert from_dict(to_dict(Config()), "defaults") == Config()
    assert all(len(field.metadata["description"]) > 3 for field in all_options().values())


def test_a_config_cannot_be_written_to():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().optim.lr = 1


# Mistakes

def test_all_mistakes_are_in_one_error_each_with_path_value_and_what_is_allowed(tmp_path):
    write(tmp_path / "below.yaml", "data: {format: shapes}\nrun: {num_workers: -1}")
    name = write(tmp_path / "mine.yaml", "\n".join([
        "base: below.yaml",
        "optim: {lr: fast, momntum: 0.9}",
        "model: {roi_pooling: align_detectron, rpn: {nms_thresh: 1.5}}",
        "augment: 3",
        "colour: blue"]))
    with pytest.raises(BadInput) as caught:
        load_config(name, ["seed=x", "nonsense", "batch.sise=4", "data.root=[1"])
    first, lines = str(caught.value).splitlines()[0], caught.value.mistakes
    expected = [
        r"run\.num_workers='?-1'?: at least 0",
        r"optim\.lr='fast': a number expected",
        r"optim\.momntum: no such option \(did you mean optim\.momentum\?\)",
        r"model\.roi_pooling='align_detectron': one of .*align_original.*\(did you mean align_detectron2\?\)",
        r"model\.rpn\.nms_thresh='?1\.5'?: at least 0 and at most 1",
        r"augment='?3'?: this is a section, with options such as augment\.hflip_prob",
        r"colour: no such option",
        r"seed='x': a whole number expected",
        r"'nonsense': overrides are key=value, such as optim\.lr=0\.01",
        r"batch\.sise: no such option \(did you mean batch\.size\?\)",
        r"data\.root=\[1: the value is no YAML; quote it"]
    for pattern in expected:
        assert sum(bool(re.search(pattern, line)) for line in lines) == 1, (pattern, lines)
    assert len(lines) == len(expected)
    assert name in first and f"{len(expected)} mistakes" in first
    assert len(error_of("optim.lr=fast").splitlines()) == 1


@pytest.mark.parametrize("typed, meant", [
    ("optim.rte", "optim.lr"),                # close to an old name
    ("optim.momemtum", "optim.momentum"),
    ("model.rpn.positive_oiu", "model.rpn.fg_iou_thresh"),
    ("modell.body", "model.backbone"),        # a section that does not exist: its option's name counts
    ("modell.backbone", "model.backbone"),
    ("rate", "optim.lr"),                     # the section is missing
    ("hflip_prob", "augment.hflip_prob"),
    ("train.epochs", "schedule.epochs"),      # a section of other programs
    ("data.workers", "run.num_workers"),      # the right name in the wrong section
    ("data.num_workers", "run.num_workers"),
    ("run.classes", "data.classes"),
    ("optim.warmup_steps", "schedule.warmup_steps"),
    ("optim.epochs", "schedule.epochs"),
    ("optim.gamma", "schedule.gamma"),
    ("model.dropuot", "model.dropout"),
])
def test_the_option_that_was_meant_is_named(typed, meant):
    assert f"{typed}: no such option (did you mean {meant}?)" in error_of(f"{typed}=1")
    assert "did you mean" not in error_of("zzzzzzzz=1"), "similar to no option"


def test_an_override_without_key_or_value_sign_changes_nothing():
    for override in ("", "=", "=3", "optim.lr"):
        tree = {"seed": 1}
        assert len(apply_override(tree, override)) == 1
        assert tree == {"seed": 1}


@pytest.mark.parametrize("overrides, named", [
    (["augment.min_size=[]"], "augment.min_size"), (["augment.min_size=[600, 31]"], "augment.min_size"),
    (["augment.scale_jitter=[1]"], "augment.scale_jitter"), (["augment.scale_jitter=[2, 1]"], "augment.scale_jitter"),
    (["augment.scale_jitter=[0, 1]"], "augment.scale_jitter"),
    (["data.train=null"], "data.train=[]: at least one split is needed, such as data.train=train"),
    (["data.format=coco", "data.root="], "data.root"),
    (["model.roi.bbox_reg_weights=[10, 10, 5]"], "model.roi.bbox_reg_weights"),
    (["model.roi.bbox_reg_weights=[10, 10, 5, 0]"], "model.roi.bbox_reg_weights"),
    (["model.rpn.bg_iou_thresh=0.8"], "model.rpn.bg_iou_thresh"),
    (["model.anchor_ratios=[]"], "model.anchor_ratios"), (["model.anchor_ratios=[0.5, -1]"], "model.anchor_ratios"),
    (["model.anchor_sizes=[[32], []]"], "model.anchor_sizes"),
    (["model.roi.bg_iou_thresh=0.6"], "model.roi.bg_iou_thresh"), (["model.anchor_sizes=[[32, 0]]"], "model.anchor_sizes"),
    (["model.frozen_stages=1"], "model.frozen_stages"),    # the demo starts from random weights
    (["model.norm=frozen"], "model.norm"),
    (["evaluate.metric=voc", "evaluate.best_metric=AP75"], "evaluate.best_metric"),
    (["evaluate.best_metric=accuracy"], "evaluate.best_metric"),
    (["schedule.epochs=0"], "schedule.epochs"),
])
def test_values_that_contradict_each_other_are_refused(overrides, named):
    assert named in error_of(*overrides)


def test_all_contradictions_are_in_one_error():
    message = error_of("schedule.epochs=0", "data.train=[]", "model.norm=frozen")
    assert "3 mistakes" in message
    assert all(path in message for path in ("schedule.epochs", "data.train", "model.norm"))


@pytest.mark.parametrize("overrides", [
    ["schedule.epochs=0", "schedule.steps=1"],
    ["model.weights=imagenet", "model.norm=frozen", "model.frozen_stages=5"],
    ["model.backbone=mobilenet_v3_large_fpn", "model.weights=imagenet", "model.frozen_stages=6", "model.anchor_sizes=[]"],
    ["model.rpn.bg_iou_thresh=0.7", "augment.scale_jitter=[0.1, 4]", "data.val=[]"],
])
def test_the_edge_of_a_contradiction_is_allowed(overrides):
    load_config("shapes/demo", overrides)


CHANGES = ["seed=3", "optim.lr=1e-5", "run.name=007", "data.classes=[yes, 1, déjà vu, 16:20, null]", "data.val=[]",
           "model.anchor_sizes=[[8, 16]]", "augment.scale_jitter=[0.1, 2]", "run.channels_last=false", "batch.size=0"]


@pytest.mark.parametrize("overrides", [[], CHANGES])
def test_a_config_written_as_yaml_reads_back_the_same(tmp_path, overrides):
    config = load_config("shapes/demo", overrides)
    assert from_dict(to_dict(config), "there and back") == config
    name = write(tmp_path / "config.yaml", to_yaml(config))
    assert load_config(name) == config


def test_a_written_config_has_the_order_of_the_schema():
    assert list(flatten(to_dict(Config()))) == list(all_options())
    places = [to_yaml(Config()).index(f"\n{section}:") for section in ("data", "batch", "model", "optim", "seed")]
    assert places == sorted(places)


def test_plain_data_holds_every_option_once_and_only_what_any_reader_knows():
    def kinds(value):
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
        return {type(value)}.union(*map(kinds, inner))
    assert flatten({"a": 1, "b": {"c": 2, "d": {"e": [3]}}, "f": {}}) == {"a": 1, "b.c": 2, "b.d.e": [3]}
    assert sorted(flatten(to_dict(Config()))) == sorted(all_options())
    assert kinds(to_dict(Config())) <= {dict, list, str, int, float, bool}


def test_mistakes_in_plain_data_name_where_it_comes_from():
    with pytest.raises(BadInput, match=r"checkpoint 7\b.*: 2 mistakes[\s\S]*seed=-1[\s\S]*sead"):
        from_dict({"seed": -1, "sead": 1}, "checkpoint 7")


def test_a_run_has_its_folder_below_run_folder_and_home_is_understood(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    config = load_config("shapes/demo", ["run.folder=~/runs", "run.name=first"])
    assert run_folder(config) == tmp_path / "runs" / "first"
