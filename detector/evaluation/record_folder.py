"""Where the results of an evaluation are written: in the run folder, or in a folder of their own below it."""

import hashlib
import json
import os
import re
from pathlib import Path

from detector.config.load import to_dict
from detector.config.schema import Config
from detector.config.sections import flatten
from detector.data.split import val_share
from detector.run import files

# The options that change what is measured. All others, such as run.num_workers and evaluate.batch_size, change speed.
MEASURED = ("run.precision", "data.root", "data.format", "data.images", "data.val", "data.invalid_boxes",
            "data.duplicates", "data.unreadable_images", "evaluate.metric", "evaluate.min_size", "evaluate.max_size",
            "evaluate.score_thresh", "evaluate.nms_thresh", "evaluate.max_detections", "evaluate.tta")
OF_SHARE = ("data.train", "seed")  # decide which images are held out where data.val is a share
BY_VALUE = ("data.root", "data.format", "data.images", "data.val", "evaluate.metric")  # these are named by value alone
MAX_NAME = 60  # characters
ENDING = re.compile(r"\.(json|txt|ya?ml)$")  # of a file that data.val names


def changed_options(run: Config, evaluation: Config) -> dict[str, object]:
    """Returns the options of an evaluation that differ from those of its run and change what is measured."""
    before, after = flatten(to_dict(run)), flatten(to_dict(evaluation))
    options = MEASURED if val_share(evaluation.data.val) is None else (*MEASURED, *OF_SHARE)
    return {option: after[option] for option in options if after.get(option) != before.get(option)}


def record_folder(run: Path, changes: dict[str, object]) -> Path:
    """Returns the folder for the results of an evaluation.

    Without changes this is the run folder; else a folder below it that is named after the changed options, such as
    evaluations/test2017, evaluations/voc or evaluations/checkpoint=last. A second evaluation with the same changes has
    the same folder; one with other changes that would have the same name gets a suffix.

    Args:
        changes: see `changed_options`; also `checkpoint`, of another checkpoint than the best.
    """
    if not changes:
        return run
    folder = run / files.EVALUATIONS_FOLDER / folder_name(changes)
    overrides = files.read_json(folder / files.RESULTS_FILE).get("overrides")
    if overrides in (None, [f"{key}={value}" for key, value in changes.items()]):
        return folder
    suffix = hashlib.sha256(json.dumps(changes, default=str).encode()).hexdigest()[:8]
    return folder.with_name(f"{folder.name}-{suffix}")


def folder_name(changes: dict[str, object]) -> str:
    """Returns a short name for changed options, of characters that every file system takes."""
    parts = []
    for option, value in changes.items():
        values = value if isinstance(value, (list, tuple)) else [value]
        text = "+".join(ENDING.sub("", os.path.basename(str(item).rstrip("/"))) for item in values)
        parts.append(text if option in BY_VALUE and text else f"{option.rpartition('.')[2]}={text}")
    name = re.sub(r"[^A-Za-z0-9_.=+-]+", "-", "-".join(parts)).strip(".-")
    return name[:MAX_NAME] or "other"
