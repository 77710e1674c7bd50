"""Nested options: two layers as one; sections as keys with dots, such as `optim.lr`, and back."""

from detector.errors import BadInput


def merge(lower: dict, upper: dict) -> dict:
    """Returns both layers as one: sections are merged, other values of `upper` replace those of `lower`."""
    merged = dict(lower)
    for key, value in upper.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def nest(path: str, value: object) -> dict:
    """Returns a value below the sections of its path: ("optim.lr", 1) -> {"optim": {"lr": 1}}."""
    *sections, name = path.split(".")
    tree = {name: value}
    for section in reversed(sections):
        tree = {section: tree}
    return tree


def flatten(tree: dict, prefix: str = "") -> dict:
    """Converts nested dicts to one with paths as keys: {"optim": {"lr": 1}} -> {"optim.lr": 1}."""
    flat = {}
    for key, value in tree.items():
        flat.update(flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value})
    return flat


def expand_keys(tree: dict, source: str, prefix: str = "") -> dict:
    """Returns the options of a file with sections in place of dots: {"optim.lr": 1} -> {"optim": {"lr": 1}}.

    Args:
        source: the file, named in the error.
        prefix: path of the section that the tree is, with a dot at the end.

    Raises:
        BadInput: an option is stated both with a dot and in its section.
    """
    expanded: dict = {}
    for key, value in tree.items():
        layer = nest(key, expand_keys(value, source, f"{prefix}{key}.") if isinstance(value, dict) else value)
        twice = stated_twice(expanded, layer, prefix)
        if twice:
            raise BadInput(f"{source}: stated twice, with a dot and as a section: {', '.join(twice)}; leave one out")
        expanded = merge(expanded, layer)
    return expanded


def stated_twice(a: dict, b: dict, prefix: str = "") -> list[str]:
    """Returns the paths of what two layers both state, other than sections with different options."""
    paths: list[str] = []
    for key in sorted(a.keys() & b.keys()):
        both = isinstance(a[key], dict) and isinstance(b[key], dict)
        paths += stated_twice(a[key], b[key], f"{prefix}{key}.") if both else [f"{prefix}{key}"]
    return paths
