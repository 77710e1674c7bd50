"""YAML files with `base:` and `key=value` overrides -> Config. All mistakes are reported in one error."""

import dataclasses
import os
import typing
from pathlib import Path

import yaml

from detector.config.aliases import advice_for, tell_once, translate
from detector.config.parsing import checked, convert, did_you_mean, plain, show
from detector.config.schema import Config, contradictions
from detector.errors import BadInput, listed

ORIGINAL = "recipe/original"  # the config that `recipe: original` of version 0.1 stands for


def load_config(name: str, overrides: list[str] = ()) -> Config:
    """Returns the config of a YAML file, or of a recipe that ships with the package, with `key=value` overrides.

    An empty `run.name` becomes the name of the file.

    Raises:
        BadInput: with every mistake at once.
    """
    path = find_config(name)
    tree, mistakes = read_with_base(path), []
    for override in overrides:
        mistakes += apply_override(tree, override)
    config = build(Config, with_recipe(tree), "", mistakes)
    if not mistakes:
        mistakes = contradictions(config)
    if mistakes:
        raise listed(f"config {name}", mistakes)
    if not config.run.name:
        config = dataclasses.replace(config, run=dataclasses.replace(config.run, name=Path(path).stem))
    return config


def from_dict(tree: dict, where: str) -> Config:
    """Returns the config that plain data holds, such as that of a checkpoint; `where` is named in the error."""
    mistakes: list[str] = []
    tree, _ = translate(tree, where)
    tree.pop("recipe", None)  # of version 0.1: the options themselves are all stated
    config = build(Config, tree, "", mistakes)
    if mistakes:
        raise listed(where, mistakes)
    return config


def with_recipe(tree: dict) -> dict:
    """Returns the tree without `recipe:` of version 0.1; `recipe: original` puts that recipe below all other layers."""
    recipe = tree.pop("recipe", "modern")
    if recipe == "modern":
        return tree
    if recipe != "original":
        raise BadInput(f"recipe={show(recipe)}: there is only recipe=original, today written as base: {ORIGINAL}")
    tell_once([f"recipe: original is now written as base: {ORIGINAL}"])
    return merge(read_with_base(find_config(ORIGINAL)), tree)


def to_dict(config: Config) -> dict:
    """Plain data: dicts, lists, numbers and texts."""
    return plain(dataclasses.asdict(config))


def to_yaml(config: Config) -> str:
    return yaml.safe_dump(to_dict(config), sort_keys=False)


def flatten(tree: dict, prefix: str = "") -> dict:
    """{"optim": {"rate": 1}} -> {"optim.lr": 1}"""
    flat = {}
    for key, value in tree.items():
        flat.update(flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value})
    return flat


def shipped_folder() -> Path:
    """The folder that holds `configs/` and `slurm/`: the checkout, or what the wheel carries."""
    package = Path(__file__).resolve().parent.parent
    return package / "shipped" if (package / "shipped").is_dir() else package.parent


def find_config(name: str) -> Path:
    """A file, or a shipped recipe by name: `custom/bccd`, `configs/custom/bccd.yaml`."""
    if Path(name).is_file():
        return Path(name)
    inside = shipped_folder() / "configs"
    short = name.removeprefix("configs/").removesuffix(".yaml")
    if (inside / f"{short}.yaml").is_file():
        return inside / f"{short}.yaml"
    known = sorted(str(path.relative_to(inside).with_suffix("")) for path in inside.rglob("*.yaml")
                   if path.parent.name != "cluster")  # a site, and no config of a run
    raise BadInput(f"no such config file: {name}{did_you_mean(short, known)}. Give a YAML file, or one of: "
                   + ", ".join(known))


def read_with_base(path: Path, seen: tuple[Path, ...] = ()) -> dict:
    """The options a file states, laid over those of its `base:` (a file relative to it, or a shipped recipe)."""
    path = path.resolve()
    if path in seen:
        raise BadInput(f"{path}: base: leads back to itself, over " + " -> ".join(p.name for p in (*seen, path)))
    try:
        said = read_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"cannot read config file {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BadInput(f"config file {path} is not a text file (UTF-8): {error.reason}") from error
    except yaml.YAMLError as error:
        raise BadInput(f"broken YAML in {path}: {' '.join(str(error).split())}") from error
    said = {} if said is None else said
    if not isinstance(said, dict):
        raise BadInput(f"{path}: options expected, such as `seed: 1`, not {show(said)}")
    said, notes = translate(said, str(path))
    tell_once([f"{path.name}: {note}" for note in notes])
    base = said.pop("base", None)
    if base is None:
        return said
    if not isinstance(base, str):
        raise BadInput(f"{path}: base: {show(base)} is no name of a file")
    beside = path.parent / base
    try:
        below = beside if beside.is_file() else find_config(base)
    except BadInput as error:
        raise BadInput(f"{path}: base: {base}: {error}") from error
    return merge(read_with_base(below, (*seen, path)), said)


def read_yaml(text: str):
    """Dicts, lists and texts: what a text means is decided by the type of its option, not by YAML 1.1.

    That would make a text of 1e-2, a number of the range 16:20 and a boolean of a class called no.
    """
    return yaml.load(text, Loader=_Loader)


class _Loader(yaml.BaseLoader):
    """Refuses a key that is said twice in one place, of which YAML would silently take the last."""

    def construct_mapping(self, node, deep=False):
        said = [key.value for key, _ in node.value]
        twice = sorted({str(key) for key in said if said.count(key) > 1})
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"said twice: {', '.join(twice)}", node.start_mark)
        return super().construct_mapping(node, deep)


def merge(below: dict, above: dict) -> dict:
    """`above` wins; sections are merged, lists are replaced."""
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def apply_override(tree: dict, override: str) -> list[str]:
    """Merges one `key=value` into the tree, in place; returns its mistakes."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        return [f"{override!r}: overrides are key=value, such as optim.lr=0.01"]
    try:
        value = read_yaml(text) if text else ""
    except yaml.YAMLError:
        return [f"{key}={text}: the value is no YAML; quote it if it is a text"]
    layer = value
    for name in reversed(key.split(".")):
        layer = {name: layer}
    layer, notes = translate(layer, "command line")
    tell_once(notes)
    merged = merge(tree, layer)
    tree.clear()
    tree.update(merged)
    return []


def build(kind: type, said: object, path: str, mistakes: list[str]):
    """A dataclass from plain data; what is wrong is appended to `mistakes`."""
    if not isinstance(said, dict):
        mistakes.append(f"{path.rstrip('.')}={show(said)}: this is a section, with options such as "
                        f"{path}{dataclasses.fields(kind)[0].name}")
        return kind()
    fields = {field.name: field for field in dataclasses.fields(kind)}
    types, values = typing.get_type_hints(kind), {}
    for key, value in said.items():
        if key not in fields:
            mistakes += [f"{name}: no such option{advice_for(name) or did_you_mean(name, all_options())}"
                         for name in flatten({f"{path}{key}": value})]
        elif dataclasses.is_dataclass(types[key]):
            values[key] = build(types[key], value, f"{path}{key}.", mistakes)
        else:
            try:
                values[key] = checked(convert(value, types[key]), fields[key].metadata)
            except ValueError as error:
                mistakes.append(f"{path}{key}={show(value)}: {error}")
    return kind(**values)


def all_options(kind: type = Config, path: str = "") -> dict[str, dataclasses.Field]:
    """Every option by its path, in the order of the schema."""
    types, options = typing.get_type_hints(kind), {}
    for field in dataclasses.fields(kind):
        if dataclasses.is_dataclass(types[field.name]):
            options.update(all_options(types[field.name], f"{path}{field.name}."))
        else:
            options[path + field.name] = field
    return options


def run_folder(config: Config) -> Path:
    """Where this run keeps everything."""
    return Path(os.path.expanduser(config.run.folder)) / config.run.name
