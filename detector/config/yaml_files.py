"""Options as YAML: files, texts and single values, read and written."""

from pathlib import Path

import yaml
from yaml import YAMLError

from detector.config.parsing import format_value
from detector.config.paths import quote_hint
from detector.config.sections import expand_keys
from detector.errors import BadInput

DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # where PyYAML has libyaml: seven times as fast


def read_options(path: Path) -> dict:
    """Returns the mapping in a YAML file, see `expand_keys`; an empty file is an empty mapping."""
    text = ""
    try:
        text = path.read_text(encoding="utf-8")
        tree = read_yaml(text)
    except OSError as error:
        raise BadInput(f"cannot read config file {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BadInput(f"config file {path} is not a text file (UTF-8): {error.reason}") from error
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        hint = quote_hint(text, mark.index) if mark else ""
        raise BadInput(f"broken YAML in {path}: {' '.join(str(error).split())}{hint}") from error
    tree = {} if tree is None else tree
    if not isinstance(tree, dict):
        raise BadInput(f"{path}: options expected, such as `seed: 1`, not {format_value(tree)}")
    return expand_keys(tree, str(path))


def read_yaml(text: str):
    """Parses YAML to dicts, lists and texts; the type of an option decides what a text means.

    YAML 1.1 itself would read 1e-2 as a text, 16:20 as a number and a class called `no` as a boolean.
    """
    return yaml.load(text, Loader=_Loader)


class _Loader(yaml.BaseLoader):
    """Refuses a key that is stated twice in one mapping; YAML would silently take the last."""

    def construct_mapping(self, node, deep=False):
        keys = [key.value for key, _ in node.value]
        repeated = sorted({str(key) for key in keys if keys.count(key) > 1})
        if repeated:
            raise yaml.constructor.ConstructorError(None, None, f"stated twice: {', '.join(repeated)}", node.start_mark)
        return super().construct_mapping(node, deep)


def dump(tree: dict) -> str:
    """Returns nested dicts of lists, numbers and texts as YAML."""
    return yaml.dump(tree, Dumper=DUMPER, sort_keys=False)


def dump_value(value: object) -> str:
    """Returns one value as YAML in one line, as it is written behind key= in a shell: [640,800]; empty for no text."""
    if isinstance(value, (list, tuple)):
        return f"[{','.join(dump_value(item) for item in value)}]" if value else ""
    return str(value) if isinstance(value, str) else dump(value).removesuffix("...\n").strip()
