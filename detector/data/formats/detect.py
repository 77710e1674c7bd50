"""`data.format: auto`: finds out which format lies below `data.root`, and which of its splits are meant."""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from detector.config.schema import Data
from detector.data.formats import FORMATS, find_format
from detector.data.formats.layouts import LAYOUTS, is_coco
from detector.data.formats.listing import forget_folders, list_folder
from detector.data.formats.split_names import SPLIT_NAMES
from detector.data.formats.unusable import is_split, near_misses, unusable_splits
from detector.data.formats.yolo_data_file import data_file, yaml_file
from detector.data.split import val_share
from detector.data.text_files import check_reachable, list_names
from detector.errors import BadInput, combine_mistakes, shorten

AUTO = "auto"
MAX_NAMES = 10            # names in an error message
PART_FOLDERS = ("annotations", "images", "jpegimages", "labels", "imagesets", "train", "val", "valid", "test")
MAX_FOLDERS = 20          # folders that are searched for a layout one level deeper
ANNOTATION_FOLDERS = ("annotations", "labels")  # an annotation file in one of them: data.root is the folder above
# Words in the names of splits, the most usual first; a number may follow, of which the largest counts: train2017.
WORDS = {"train": (*SPLIT_NAMES["train"], "trn", "trainval"), "val": (*SPLIT_NAMES["val"], "minival", "dev")}
OTHER = (*WORDS["val"], *SPLIT_NAMES["test"], "minus")


@dataclass(frozen=True)
class Match:
    """A layout that lies below a root.

    train, val: the splits that `data.train` and `data.val` mean; None: at least one of them is not there.
    """

    format: str
    splits: tuple[str, ...]  # all that are there
    train: tuple[str, ...] | None
    val: tuple[str, ...] | None


def detect_format(config: Data) -> tuple[Data, str]:
    """Returns the options with format, root and splits as they are meant, and a sentence about what was chosen.

    A stated format is kept, without a sentence. `data.root` may be an annotation file of COCO or a data file of YOLO:
    its folder is meant then, and its splits.

    Raises:
        BadInput: no format or several fit, which is described for each format, or a split is not there.
    """
    place, stated = os.path.expanduser(config.root), config.format != AUTO
    config, file = _with_folder(config)
    if stated:
        return config, ""
    root = os.path.expanduser(config.root)
    check_reachable(root, "folder")
    if not os.path.isdir(root):
        raise no_such_folder(root)
    list_names(root)  # an error if it may not be read
    forget_folders()
    names = LAYOUTS if config.format == AUTO else [config.format]
    matches = [match for name in names for match in [_match(name, root, config, file)] if match]
    if not matches:
        raise _no_layout(root)
    complete = [match for match in matches if match.train is not None and match.val is not None]
    if len(complete) > 1:
        raise BadInput(f"data.root={root} fits several formats: {', '.join(match.format for match in complete)}. "
                       f"State which one is meant: data.format={complete[0].format}")
    if not complete:
        raise _no_split(root, matches, config)
    match, = complete
    changed = [f"{option}={_shown(new)}" for option, old, new in
               (("data.train", config.train, match.train), ("data.val", config.val, match.val)) if new != old]
    splits = f", with {', '.join(changed)}" if changed else ""
    sentence = f"data.format=auto: {place} is read as {match.format}{splits}"
    return replace(config, format=match.format, train=match.train, val=match.val), sentence


def detect_splits(config: Data, splits: tuple[str, ...]) -> tuple[Data, tuple[str, ...]]:
    """Returns `detect_format`'s options, and the splits by their names there; other splits need not be there.

    Args:
        splits: `data.train`, `data.val`, or names of other splits.
    """
    parts = {config.val: replace(config, train=()), config.train: replace(config, val=())}
    try:
        data = detect_format(config if splits in parts else replace(config, train=splits, val=()))[0]
    except BadInput as error:
        if splits not in parts:
            raise
        try:
            data = detect_format(parts[splits])[0]
        except BadInput:
            raise error from None
    return data, {config.val: data.val, config.train: data.train}.get(splits, data.train)


def detect_layout(config: Data, splits: tuple[str, ...]) -> tuple[Data, tuple[str, ...]]:
    """Returns the options with format and root as they are meant, and the splits: those stated, or all that are there.

    Raises:
        BadInput: no format or several fit, or there is no split.
    """
    if config.format != AUTO:
        find_format(config.format)
    config, file = _with_folder(replace(config, train=splits or config.train))
    root = os.path.expanduser(config.root)
    stated = () if not splits and (file or config.train == Data().train) else config.train if file else \
        splits or config.train
    check_reachable(root, "folder")
    if not os.path.isdir(root):
        raise BadInput(f"no such folder: {root}. Name the folder of the data set, or an annotation file")
    list_names(root)  # an error if it may not be read
    forget_folders()
    formats = [name for name in LAYOUTS if _splits(name, root)] if config.format == AUTO else [config.format]
    fitting = [name for name in formats if _resolve(name, root, [], stated, "") is not None]
    if len(fitting) > 1:
        raise BadInput(f"{root} fits several formats: {', '.join(fitting)}. State which one is meant: --format "
                       f"{fitting[0]}")
    if not formats:
        raise _no_layout(root)
    name = (fitting or formats)[0]
    there = _splits(name, root, file) if name in LAYOUTS else []
    causes = {} if stated or file else unusable_splits(name, root)
    if causes:
        raise combine_mistakes(f"{root}, read as {name}: splits that cannot be used; --split names others",
                               [*causes.values()])
    if not stated and not there:
        raise BadInput(f"{root}: no split of format {name}. Name one with --split")
    return replace(config, format=name, root=root), stated or tuple(there)


def _shown(splits: tuple[str, ...]) -> str:
    return splits[0] if len(splits) == 1 else f"[{','.join(splits)}]"


def _splits(name: str, root: str, file: str = "") -> list[str]:
    """Returns the splits of a format that are below a root, or those of this data file of YOLO."""
    return [f"{file}/{split}" for split in data_file(root, file).splits] if file else LAYOUTS[name].splits(root)


def _with_folder(config: Data) -> tuple[Data, str]:
    """Returns the options with a folder as `data.root`, where that is an annotation file of COCO or data file of YOLO.

    The second is the name of a data file of YOLO that is not the one which counts for its folder; else empty.
    """
    root = os.path.expanduser(config.root)
    if not os.path.isfile(root):
        return config, ""
    folder, name = os.path.split(os.path.abspath(root))
    if name.lower().endswith((".yaml", ".yml")):
        return _with_data_file(config, folder, name)
    if not name.lower().endswith(".json") or not is_coco(root):
        unpacked = ", unpacked" if name.endswith((".zip", ".tar", ".gz", ".tgz", ".rar", ".7z")) else ""
        raise BadInput(f"data.root={root} is a file, and no annotation file of COCO: set data.root to the folder of "
                       f"the data set{unpacked}")
    if os.path.basename(folder) in ANNOTATION_FOLDERS:
        folder, name = os.path.dirname(folder), os.path.join(os.path.basename(folder), name)
    train = (name,) if config.train == Data().train else config.train
    return replace(config, root=folder, train=train), ""


def _with_data_file(config: Data, folder: str, name: str) -> tuple[Data, str]:
    """Returns the options to read a data file of YOLO, as `_with_folder` does."""
    if config.format not in (AUTO, "yolo"):
        raise BadInput(f"data.root={config.root} is a data file of YOLO, but data.format={config.format}: set "
                       "data.root to the folder of the data set, or data.format=yolo")
    splits = [*data_file(folder, name).splits]
    if not splits:
        raise BadInput(f"data.root={config.root} is no data file of YOLO: it names no split. Write train: and val: "
                       "into it, or set data.root to the folder of the data set")
    config = replace(config, root=folder, format="yolo")
    if yaml_file(folder) == os.path.join(folder, name):
        return config, ""
    train, val = ((similar_splits(splits, role) or wanted)[:1] if wanted == (role,) else wanted
                  for role, wanted in (("train", config.train), ("val", config.val)))
    val = val if val_share(config.val) is not None else [f"{name}/{split}" for split in val]
    return replace(config, train=tuple(f"{name}/{split}" for split in train), val=tuple(val)), name


def _match(name: str, root: str, config: Data, file: str) -> Match | None:
    """Returns what there is of a format below a root, or in a data file; None: nothing."""
    splits = _splits(name, root, file)
    is_stated = name == "coco" and any(is_coco(os.path.join(root, split)) for split in config.train)
    if not splits and not is_stated:
        return None
    default = Data()
    train = _resolve(name, root, splits, config.train, "train" if config.train == default.train else "")
    val = config.val if val_share(config.val) is not None else \
        _resolve(name, root, splits, config.val, "val" if config.val == default.val else "")
    return Match(name, tuple(splits), train, val)


def _resolve(name: str, root: str, splits: list[str], wanted: tuple[str, ...], role: str) -> tuple[str, ...] | None:
    """Returns the names of splits as the reader of a format takes them; None: at least one of them is not there.

    Args:
        role: train or val, where `wanted` is the option's default: a split of a similar name is then taken. Else empty.
    """
    if role and wanted[0] not in splits:  # a default
        similar = similar_splits(splits, role)
        return (similar[0],) if len(similar) == 1 else None
    for split in wanted:
        try:
            if split not in splits:
                FORMATS[name].sources(root, split)
        except BadInput:
            return None
    return wanted


def similar_splits(splits: Iterable[str], role: str) -> list[str]:
    """Returns the splits whose names tell best that they are for training, or for validation: one, if that is clear.

    Args:
        role: train or val.
    """
    tokens = {split: re.findall(r"([a-z]+)(\d*)", split.lower()) for split in splits}
    ranks = {}
    for split, pairs in tokens.items():
        others = {word for word, _ in pairs} & set(OTHER) - set(WORDS[role])
        own = [(WORDS[role].index(word), -int(number or 0)) for word, number in pairs if word in WORDS[role]]
        if own and not others and not (role == "val" and {"train", "trainval"} & {word for word, _ in pairs}):
            ranks[split] = min(own)
    if ranks:
        return [split for split, rank in ranks.items() if rank == min(ranks.values())]
    unnamed = [split for split, pairs in tokens.items() if not {word for word, _ in pairs} & set(OTHER)]
    return unnamed if role == "train" else []


def _no_split(root: str, matches: list[Match], config: Data) -> BadInput:
    """Returns the error for layouts that lack a split for training or validation."""
    matches = [match for match in matches if match.train is not None] or matches
    mistakes = []
    for match in matches:
        option, wanted = ("data.train", config.train) if match.train is None else ("data.val", config.val)
        likely = similar_splits(match.splits, "train")
        every = f", or several: {option}={_shown(tuple(likely))}" if 1 < len(likely) <= MAX_FOLDERS else ""
        remedy = f"Name one, such as {option}={likely[0]}{every}" if likely else \
            "Add the annotations of the training images, or name another folder as data.root"
        if match.train is not None:
            others = [split for split in match.splits if split not in match.train]
            example = f", such as data.val={others[0]}" if others else ""
            remedy = f"Hold out a share of the training images with data.val=0.2, name a split{example}, or train " \
                "without validation, data.val=[]"
        cause = _cause(match.format, root, wanted, option.removeprefix("data."))
        mistakes.append(cause or f"read as {match.format}, but there is no split for {option}={_shown(wanted)}; its "
                        f"splits: {shorten(match.splits, MAX_NAMES)}. {remedy}")
    return combine_mistakes(f"data.root={root}", mistakes)


def _cause(name: str, root: str, wanted: tuple[str, ...], role: str) -> str:
    """Returns why what is there for a split cannot be used; empty: there is nothing.

    Args:
        name: of the format.
        wanted: the value of data.train or data.val.
        role: train or val.
    """
    causes = unusable_splits(name, root)
    named = [split for split in causes if split in wanted
             or wanted == (role,) and is_split(split) and similar_splits([split], role)]
    return causes[named[0]] if named else ""


def no_such_folder(root: str) -> BadInput:
    return combine_mistakes(f"data.root={root}", ["no such folder. Set data.root to the folder of the data set"])


def _no_layout(root: str) -> BadInput:
    """Returns the error for a folder without known annotations: what is there, and what each format needs."""
    misses = near_misses(root)
    lines = [f"  - {name}: {layout.needs}" + (f" ({misses[name]})" if name in misses else "")
             for name, layout in LAYOUTS.items()]
    names = shorten(list_folder(root).names(), MAX_NAMES) or "nothing"
    places = [os.path.join(root, name) for name in list_folder(root).folders[:MAX_FOLDERS]]
    parent, name = os.path.split(os.path.abspath(root))
    places += [parent] if name.lower() in PART_FOLDERS else []
    described = bool(yaml_file(root)) and "yolo" in misses  # then its own folders of images are no other data sets
    nearby = [(place, name) for place in places for name, layout in LAYOUTS.items()
              if layout.splits(place) and not (described and name == "yolo" and not yaml_file(place))]
    broken = [("yolo", misses["yolo"])] if described else [
        (name, cause) for name in LAYOUTS for cause in unusable_splits(name, root).values()]
    hints = [f" {nearby[0][0]} can be read as {nearby[0][1]}: set data.root={nearby[0][0]}."] if nearby else []
    hints += [f" It looks like {name}, but: {cause}." for name, cause in broken[:1]]
    hint = "".join(reversed(hints) if described else hints)
    return combine_mistakes(f"data.root={root}", [
        f"no annotations that can be used.{hint} It holds {names}. The formats need:\n" + "\n".join(lines)
        + "\nOther annotations, such as CSV files and mask images, are not read: convert them, for example to COCO"])
