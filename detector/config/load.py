"""YAML files with `base:`, and `key=value` overrides -> Config. All mistakes are reported in one error."""

import dataclasses
import os
import shlex
import typing
from collections.abc import Sequence
from pathlib import Path

from detector.config.aliases import (
    OLD_NAMES,
    advice_for,
    is_saved_by_0_1,
    print_once,
    rename_notes,
    translate,
    translate_saved,
)
from detector.config.fields import AUTO, AUTO_TEXT
from detector.config.names import RUN_CONFIG_FILE, find_config
from detector.config.options import all_options, auto_options
from detector.config.parsing import check_value, closest, convert, format_value, to_plain
from detector.config.paths import escape_paths, expand_path, expand_paths
from detector.config.schema import Config, contradictions
from detector.config.sections import flatten, merge, nest
from detector.config.yaml_files import YAMLError, dump, read_options, read_yaml
from detector.errors import BadInput, combine_mistakes

ORIGINAL = "recipe/original"  # the config that `recipe: original` of version 0.1 stands for


def load_config(name: str | os.PathLike, overrides: Sequence[str] = ()) -> Config:
    """Returns the config of a YAML file, or of a recipe that ships with the package, with `key=value` overrides.

    An empty `run.name` becomes the name of the file.

    Args:
        name: path of a file, name of a recipe, such as "custom/bccd", or a run, such as "runs/bccd".
        overrides: such as ["data.root=/data/bccd", "optim.lr=0.01"]; the last one of equal keys wins.

    Raises:
        BadInput: with every mistake at once.
    """
    name = os.fspath(name)
    path = find_config(name)
    config = config_of(read_with_base(path), [overrides] if isinstance(overrides, str) else overrides, name, path)
    if path.name == RUN_CONFIG_FILE and not os.path.isfile(os.path.expanduser(name)):
        refuse_moved_run(config, path)
    return config


def refuse_moved_run(config: Config, path: Path) -> None:
    """Raises BadInput if the config in a run folder, named by the folder, is of a run in another one."""
    trained, named = run_folder(config), path.parent
    if trained.resolve() != named.resolve():
        moved = shlex.join([str(path), f"run.folder={named.parent}", f"run.name={named.name}"])
        raise BadInput(f"{named} holds the config of a run in {trained}. To continue the run that is in {named}, write "
                       f"{moved} in its place; to train in {trained}, {shlex.quote(str(path))}")


def config_of(tree: dict, overrides: Sequence[str], name: str, path: Path) -> Config:
    """Returns the config of the options in a file, with overrides; see `load_config`. Prints notes.

    Args:
        tree: the options in the file at `path`, with those of its bases.
        name: of the config, for errors.
    """
    mistakes: list[str] = []
    stated: dict = {}
    for override in overrides:
        mistakes += apply_override(stated, override)
    config = expand_paths(build(Config, replace_recipe(merge(tree, stated)), "", mistakes), mistakes)
    if not mistakes:
        mistakes = contradictions(config)
    if mistakes:
        raise combine_mistakes(f"config {name}", mistakes)
    print_once(ignored_epochs(stated, config))
    if not config.run.name:
        config = dataclasses.replace(config, run=dataclasses.replace(config.run, name=Path(path).stem))
    return config


def ignored_epochs(stated: dict, config: Config) -> list[str]:
    """Returns a note where overrides state epochs alone, and the config has steps, which decide the length of the run.

    Args:
        stated: the options of the overrides.
    """
    schedule = stated.get("schedule", {})
    if "epochs" not in schedule or "steps" in schedule or not config.schedule.steps:
        return []
    return [f"schedule.epochs={schedule['epochs']} has no effect: schedule.steps={config.schedule.steps} of the config "
            "decides how long the run is. To let the epochs decide, add schedule.steps=0"]


def from_dict(tree: dict, source: str) -> Config:
    """Returns the config that plain data holds, such as that of a checkpoint.

    Raises:
        BadInput: with every mistake; `source` is named in it.
    """
    mistakes: list[str] = []
    tree = translate_saved(tree, source)
    config = build(Config, tree, "", mistakes)
    if has_later_options(tree):
        source += ", probably written by a newer version of Fleet R-CNN (update this one to read it)"
        mistakes = [mistake.partition(" (did you mean")[0] for mistake in mistakes]
    if mistakes:
        raise combine_mistakes(source, mistakes)
    return config


def has_later_options(tree: dict) -> bool:
    """Returns whether a config that a program saved has options that neither this version nor an older one has."""
    return any(path not in all_options() and not advice_for(path, value) for path, value in flatten(tree).items())


def replace_recipe(tree: dict) -> dict:
    """Returns the tree without `recipe:` of version 0.1; `recipe: original` puts that recipe below all other layers."""
    recipe = tree.pop("recipe", "modern")
    if recipe == "modern":
        return tree
    if recipe != "original":
        raise BadInput(f"recipe={format_value(recipe)}: an option of version 0.1, one of modern, original. Today, "
                       f"state base: {ORIGINAL} in the config file")
    print_once([f"recipe: original is now written as base: {ORIGINAL}"])
    return merge(read_with_base(find_config(ORIGINAL)), tree)


def to_dict(config: Config) -> dict:
    """Returns the config as nested dicts of lists, numbers and texts; an option that is `auto` is this text."""
    tree = to_plain(dataclasses.asdict(config))
    for path in auto_options(config):
        section, _, name = path.partition(".")
        tree[section][name] = AUTO_TEXT
    return tree


def to_yaml(config: Config) -> str:
    """Returns the config as YAML that states every option, in the order of the schema."""
    return dump(escape_paths(to_dict(config)))


def read_with_base(path: Path, parents: tuple[Path, ...] = ()) -> dict:
    """Returns the options of a file, merged over those of its `base:` (a file relative to it, or a shipped recipe).

    Args:
        parents: the files whose `base:` led to this one, to detect circles.

    Raises:
        BadInput: a file is missing, is no YAML or no config, or its bases form a circle.
    """
    path = path.resolve()
    if path in parents:
        raise BadInput(f"{path}: base: leads back to itself, over "
                       + " -> ".join(parent.name for parent in (*parents, path)))
    tree, renames = translate(read_options(path), str(path))
    print_once(rename_notes(renames, str(path)))
    if is_saved_by_0_1(renames):
        tree.pop("recipe", None)  # without effect, as every option is stated
    base = tree.pop("base", None)
    if base is None:
        return tree
    if not isinstance(base, str):
        raise BadInput(f"{path}: base: {format_value(base)} is no name of a file")
    try:
        base = expand_path(base)
        beside = path.parent / base
        base_path = beside if beside.is_file() else find_config(base)
    except (BadInput, ValueError) as error:
        raise BadInput(f"{path}: base: {base}: {error}") from error
    return merge(read_with_base(base_path, (*parents, path)), tree)


def apply_override(tree: dict, override: str) -> list[str]:
    """Merges one `key=value` into the tree, in place, and returns its mistakes."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        return [f"{override!r}: overrides are key=value, such as optim.lr=0.01"]
    try:
        is_plain = text.lstrip()[:1] not in ("[", "{", "'", '"')
        value = text if is_plain and " #" in text or not text else read_yaml(text)  # a shell has removed comments
    except YAMLError:
        return [f"{key}={text}: the value is no YAML; quote it if it is a text"]
    layer, renames = translate(nest(key, value), "command line")
    print_once(rename_notes(renames, ""))
    merged = merge(tree, layer)
    tree.clear()
    tree.update(merged)
    return []


def build(kind: type, tree: object, path: str, mistakes: list[str]):
    """Returns a dataclass of the schema, filled from plain data; mistakes are appended to the list.

    Args:
        path: of the section, with a dot at the end; empty for Config.
    """
    if not isinstance(tree, dict):
        mistakes.append(f"{path.rstrip('.')}={format_value(tree)}: this is a section, with options such as "
                        f"{path}{dataclasses.fields(kind)[0].name}")
        return kind()
    fields = {field.name: field for field in dataclasses.fields(kind)}
    types, values = typing.get_type_hints(kind), {}
    for key, value in tree.items():
        if key not in fields:
            mistakes += [unknown_option(*item) for item in flatten({f"{path}{key}": value}).items()]
        elif dataclasses.is_dataclass(types[key]):
            values[key] = build(types[key], value, f"{path}{key}.", mistakes)
        else:
            if fields[key].metadata["auto"] and types[key] is not str and value in (AUTO_TEXT, [AUTO_TEXT]):
                values[key] = (AUTO,) if typing.get_origin(types[key]) is tuple else AUTO
                continue
            try:
                values[key] = check_value(convert(value, types[key]), fields[key].metadata)
            except ValueError as error:
                mistakes.append(f"{path}{key}={format_value(value)}: {error}")
    return kind(**values)


def unknown_option(path: str, value: object) -> str:
    """Returns the mistake of an option that does not exist, with the option that was probably meant."""
    advice = advice_for(path, value)
    if advice:
        return f"{path}: no such option; {advice}"
    similar = closest(path, [*all_options(), *OLD_NAMES])
    return f"{path}: no such option" + (f" (did you mean {OLD_NAMES.get(similar, similar)}?)" if similar else "")


def run_folder(config: Config) -> Path:
    """Returns the folder that holds all files of a run."""
    return Path(os.path.expanduser(config.run.folder)) / config.run.name
