"""`fleet-rcnn options`: what it lists, its JSON, and the JSON Schema with which editors check configs."""

import json

import jsonschema
import pytest
import yaml
from conftest import REPO

from detector.__main__ import main
from detector.config.fields import AUTO
from detector.config.listing import config_schema, options_as_text, select_options
from detector.config.load import load_config, to_yaml
from detector.config.options import all_options
from detector.config.schema import Config

CONFIGS = sorted(path for path in (REPO / "configs").rglob("*.yaml") if path.parent.name != "cluster")


def read_as_an_editor(text: str):
    """Returns a YAML text as YAML 1.2 has it, in which 1e-4 is a number."""
    def numbers(value):
        if isinstance(value, dict):
            return {key: numbers(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [numbers(inner) for inner in value]
        try:
            return float(value) if isinstance(value, str) else value
        except ValueError:
            return value
    return numbers(yaml.safe_load(text))


@pytest.fixture(scope="module")
def validator():
    jsonschema.Draft7Validator.check_schema(config_schema())
    return jsonschema.Draft7Validator(config_schema())


def test_every_option_is_listed_as_it_is_typed_with_description_and_allowed_values(capsys):
    assert main(["options"]) == 0
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert len(lines) == 2 * len(all_options())
    for (path, field), first, second in zip(all_options().items(), lines[::2], lines[1::2]):
        key, _, value = first.partition("=")
        assert key == path and "(" not in value and value not in ("True", "False", "None", "''")
        assert (value == "auto") == (field.default in ("auto", AUTO, (AUTO,)) and (field.default == "auto" or field.metadata["auto"]))
        assert second.startswith(f"    {field.metadata['description']}")
    assert "early stopping follow [" not in text and "[auto | cpu | cuda]" in text and "[>= 0, <= 1]" in text and "[>= 1]" in text


def test_the_listed_defaults_typed_on_a_command_line_are_the_defaults(tmp_path):
    typed = [line for line in options_as_text(all_options()).splitlines() if not line.startswith(" ")]
    (tmp_path / "mine.yaml").write_text("data: {root: /data}\n")
    plain = load_config(str(tmp_path / "mine.yaml"))
    assert load_config(str(tmp_path / "mine.yaml"), [*typed, "data.root=/data"]) == plain
    assert "augment.scale_jitter=[1.0,1.0]" in typed and "data.root=" in typed and "data.train=[train]" in typed


@pytest.mark.parametrize("prefix, first", [
    ("optim", "optim.optimizer"), ("model.rpn", "model.rpn.batch_size_per_image"), ("optim.lr", "optim.lr"), ("lr", "optim.lr"),
    ("optim.rate", "optim.lr"), ("nms_thresh", "model.rpn.nms_thresh"), ("seed", "seed"), ("optim.", "optim.optimizer")])
def test_a_prefix_selects_a_section_an_option_or_a_name(prefix, first):
    selected = select_options(prefix)
    assert 0 < len(selected) < len(all_options())
    assert first in selected and (len(selected) == 1 if "." in first and first.split(".")[1] == prefix == "lr" else True)


def test_all_options_without_a_prefix_and_an_error_for_none(capsys):
    assert select_options("") == all_options()
    assert main(["options", "optm"]) == 2
    assert "options optm: no option or section has this name (did you mean optim?)" in capsys.readouterr().err


def test_text_fits_a_terminal():
    assert max(map(len, options_as_text(all_options(), 60).splitlines())) <= 60


def test_json_has_one_object_for_each_option(capsys):
    assert main(["options", "optim", "--json"]) == 0
    records = {record["option"]: record for record in json.loads(capsys.readouterr().out)}
    assert set(records) == set(select_options("optim")) and records["optim.lr"]["default"] == "auto"
    assert set(records["optim.lr"]) == {"option", "default", "description", "allowed"}
    assert main(["options", "--json", "--schema"]) == 2


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configs_are_valid(path, validator):
    validator.validate(read_as_an_editor(path.read_text()))


def test_every_default_and_a_saved_config_are_valid(validator):
    validator.validate(read_as_an_editor(to_yaml(Config())))
    validator.validate({})
    for path, field in all_options().items():
        section = config_schema()["properties"]
        for name in path.split(".")[:-1]:
            section = section[name]["properties"]
        schema = section[path.split(".")[-1]]
        assert schema["description"] == field.metadata["description"]
        jsonschema.Draft7Validator(schema).validate(schema["default"])


@pytest.mark.parametrize("text, place", [
    ("optim: {rat: 1}", "optim"), ("optim: {lr: fast}", "lr"), ("run: {device: gpu}", "device"), ("batch: {size: -1}", "size"),
    ("augment: {min_size: [a]}", "min_size"), ("nothing: 1", None), ("optim: 1", "optim"), ("augment: {hflip_prob: 2}", "hflip_prob"),
    ("run: {resume_best: maybe}", "run")])
def test_what_the_config_refuses_the_schema_refuses(text, place, validator, tmp_path):
    errors = list(validator.iter_errors(read_as_an_editor(text)))
    assert errors and (place is None or place in errors[0].path)
    (tmp_path / "wrong.yaml").write_text(text)
    with pytest.raises(Exception, match="no such option|expected|one of|at least|at most|section"):
        load_config(str(tmp_path / "wrong.yaml"), ["data.root=/data"])


@pytest.mark.parametrize("text", ["augment: {min_size: auto}", "augment: {min_size: 640}", "augment: {min_size: [640, 800]}",
                                  "data: {val: 0.2}", "data: {val:}", "data: {classes: [cat, 7]}", "model: {backbone: mine}",
                                  "base: custom/bccd", "run: {name: 5}"])
def test_what_the_config_allows_the_schema_allows(text, validator):
    validator.validate(read_as_an_editor(text))
