"""The configs that ship with the package, and the layer recipe/original below a config."""

from pathlib import Path

import pytest

from detector.config.load import from_dict, load_config, read_with_base, to_dict, to_yaml
from detector.config.model_schema import Rpn
from detector.config.names import find_config, shipped_folder
from detector.config.schema import Config
from detector.config.sections import flatten
from detector.errors import BadInput

RECIPES = sorted(path for path in (shipped_folder() / "configs").rglob("*.yaml") if path.parent.name != "cluster")
LONGEST = 25  # lines of a recipe


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


# recipe/original

def test_the_original_recipe_lies_below_all_other_layers(tmp_path):
    """Defaults, then the recipe, then base and file, then the command line."""
    recipe = flatten(read_with_base(shipped_folder() / "configs" / "recipe" / "original.yaml"))
    name = write(tmp_path / "mine.yaml", "data: {format: shapes}\noptim: {grad_clip_norm: 7}")
    modern, original = load_config(name), load_config(name, ["recipe=original"])
    assert modern == load_config(name, ["recipe=modern"])
    for path in recipe:
        assert value_of(original, path) != value_of(modern, path), f"{path} is the default anyway"
    assert original.optim.grad_clip_norm == 7
    write(tmp_path / "mine.yaml",
          "base: recipe/original\ndata: {format: shapes}\nmodel: {roi: {batch_size_per_image: 64}}")
    assert load_config(name).model.roi.batch_size_per_image == 64
    assert load_config(name, ["model.roi.batch_size_per_image=32"]).model.roi.batch_size_per_image == 32
    assert load_config(name).evaluate.nms_thresh == original.evaluate.nms_thresh != modern.evaluate.nms_thresh


def test_the_old_key_recipe_means_the_original_recipe_as_base(tmp_path):
    options = "data: {format: shapes}\nmodel: {roi: {batch_size_per_image: 64}}\n"
    today = load_config(write(tmp_path / "mine.yaml", "base: recipe/original\n" + options))
    old = write(tmp_path / "mine.yaml", "recipe: original\n" + options)
    assert load_config(old) == today
    child = write(tmp_path / "child.yaml", "base: mine.yaml\nrun: {name: mine}")
    assert load_config(child) == today
    write(tmp_path / "mine.yaml", "recipe: modern\n" + options)
    assert load_config(child, ["recipe=original"]) == today, "a later layer replaces the key"
    write(tmp_path / "mine.yaml", "recipe: original\n" + options)
    assert load_config(child, ["recipe=modern"]).model.rpn == Rpn()


def test_a_resolved_config_with_the_original_recipe_reads_back_the_same(tmp_path):
    config = load_config("shapes/demo", ["recipe=original", "evaluate.nms_thresh=0.45"])
    assert load_config(write(tmp_path / "config.yaml", to_yaml(config))) == config
    assert from_dict(to_dict(config), "there and back") == config


@pytest.mark.parametrize("name", ["orignal", "", "[modern]", "{a: 1}", "../shapes/demo"])
def test_an_unknown_recipe_lists_those_that_exist(name):
    message = error_of(f"recipe={name}")
    assert message.startswith("recipe=") and "one of modern, original" in message and "base: recipe/original" in message


# Recipes

def test_a_recipe_is_found_by_name_from_anywhere_unless_there_is_such_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("shapes/demo", "configs/shapes/demo.yaml", "shapes/demo.yaml", "configs/shapes/demo"):
        assert find_config(name) == shipped_folder() / "configs" / "shapes" / "demo.yaml"
    write(tmp_path / "configs" / "shapes" / "demo.yaml", "seed: 5\ndata: {format: shapes}")
    assert load_config("configs/shapes/demo.yaml").seed == 5


@pytest.mark.parametrize("name", ["shapes/dmo", "configs/shapes/dmo.yaml", "", ".", "configs", "shapes"])
def test_a_name_that_is_no_config_lists_the_recipes(name):
    with pytest.raises(BadInput, match="no such config file") as caught:
        find_config(name)
    for path in RECIPES:
        assert str(path.relative_to(shipped_folder() / "configs").with_suffix("")) in str(caught.value)
    assert "dmo" not in name or "did you mean shapes/demo?" in str(caught.value)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_short_loads_and_reads_back(path, tmp_path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LONGEST
    config = load_config(str(path), ["data.root=/data"])
    assert config.run.name
    assert load_config(write(tmp_path / "config.yaml", to_yaml(config))) == config


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_opens_with_what_it_is_and_the_command_that_runs_it(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    for line, word in zip(lines, ("What", "Expected", "Hardware", "Command")):
        assert line.startswith(f"# {word}: ")
    row = f"fleet-rcnn reproduce {path.stem}" if path.parent.name == "tables" else str(path.relative_to(shipped_folder()))
    assert row in lines[3], "the command is for this file"


def test_recipes_do_not_share_a_run_folder():
    names = [load_config(str(path), ["data.root=/data"]).run.name for path in RECIPES]
    assert len(set(names)) == len(names) >= 5
