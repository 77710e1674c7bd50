"""Configs and runs by name: `custom/bccd` is a config that ships with the package, `cells` the run in runs/cells."""

import difflib
import os
from pathlib import Path

from detector.config.parsing import did_you_mean
from detector.errors import BadInput

RUNS_FOLDER = "runs"             # of the runs, unless run.folder states another
RUN_CONFIG_FILE = "config.yaml"  # in a run folder: the resolved config


def shipped_folder() -> Path:
    """Returns the folder that holds `configs/` and `slurm/`: the checkout, or a folder of the installed package."""
    package = Path(__file__).resolve().parent.parent
    return package / "shipped" if (package / "shipped").is_dir() else package.parent


def config_names() -> list[str]:
    """Returns the names of the configs that ship with the package, such as custom/bccd."""
    folder = shipped_folder() / "configs"
    return sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.yaml")
                  if path.parent.name != "cluster")  # describes a cluster, not a run


def run_names() -> list[str]:
    """Returns the names of the runs below runs/, also nested ones such as exp1/a."""
    paths = [path for pattern in ("*", "*/*") for path in Path(RUNS_FOLDER).glob(f"{pattern}/{RUN_CONFIG_FILE}")]
    return sorted(str(path.parent.relative_to(RUNS_FOLDER)) for path in paths)


def named_run(name: str) -> str:
    """Returns the folder of a run that is named by its folder or by its name below runs/; other names unchanged."""
    inside = os.path.join(RUNS_FOLDER, name)
    return inside if name and not os.path.isdir(name) and os.path.isdir(inside) else name


def no_such_run(name: str) -> BadInput:
    """Returns the error for a name that stands for no run, with the one that was probably meant."""
    hint = did_you_mean(name.removeprefix(f"{RUNS_FOLDER}/"), run_names())
    return BadInput(f"no such run folder: {name}{hint}. Name the folder, such as {RUNS_FOLDER}/bccd, or its name below "
                    f"{RUNS_FOLDER}/, such as bccd; `fleet-rcnn jobs` lists the runs")


def find_config(name: str) -> Path:
    """Returns the path of a config file, of a shipped recipe, or of the config in a run folder.

    A recipe may be written custom/bccd or configs/custom/bccd.yaml, a run cells or runs/cells.

    Raises:
        BadInput: lists the shipped recipes, and names the recipe or run of a similar name.
    """
    for path in (Path(name), Path(os.path.expanduser(name))):
        if path.is_file():
            return path
    folder = shipped_folder() / "configs"
    short = name.removeprefix("configs/").removesuffix(".yaml")
    for path in (folder / f"{short}.yaml", Path(os.path.expanduser(named_run(name))) / RUN_CONFIG_FILE):
        if name and path.is_file():
            return path
    raise BadInput(f"no such config file: {name}{similar_config(short)}. Give a YAML file, or one of: "
                   + ", ".join(config_names()))


def similar_config(name: str) -> str:
    """Returns " (did you mean ...?)" with the recipe or run of a similar name, such as custom/bccd for bccd."""
    names = [*config_names(), *run_names()]
    by_last = {path.rpartition("/")[2]: path for path in reversed(names)}
    last = name.rpartition("/")[2]
    close = ([by_last[last]] if last in by_last else difflib.get_close_matches(name, names, 1)
             or [by_last[match] for match in difflib.get_close_matches(last, by_last, 1)])
    return f" (did you mean {close[0]}?)" if close else ""
