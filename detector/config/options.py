"""Options by their path, such as `optim.lr`: all of them, those that are `auto`, and configs with some replaced."""

import dataclasses
import typing
from collections.abc import Mapping
from operator import attrgetter

from detector.config.fields import AUTO, AUTO_TEXT
from detector.config.schema import Config


def all_options(kind: type = Config, path: str = "") -> dict[str, dataclasses.Field]:
    """Returns every option by its path, in the order of the schema."""
    types, options = typing.get_type_hints(kind), {}
    for field in dataclasses.fields(kind):
        if dataclasses.is_dataclass(types[field.name]):
            options.update(all_options(types[field.name], f"{path}{field.name}."))
        else:
            options[path + field.name] = field
    return options


def auto_options(config: Config) -> list[str]:
    """Returns the paths of the options that are `auto`: the run finds their values when it starts."""
    return [path for path, field in all_options().items()
            if field.metadata["auto"] and attrgetter(path)(config) in (AUTO, (AUTO,), AUTO_TEXT)]


def replace_options(config: Config, values: Mapping[str, object]) -> Config:
    """Returns the config with other values for some options, given by path."""
    for path, value in values.items():
        section, _, name = path.partition(".")
        config = dataclasses.replace(config, **{
            section: dataclasses.replace(getattr(config, section), **{name: value})})
    return config


def fill_auto(config: Config, other: Config) -> Config:
    """Returns the config with its `auto` options replaced by the values of another config, such as a checkpoint's."""
    return replace_options(config, {path: attrgetter(path)(other) for path in auto_options(config)})
