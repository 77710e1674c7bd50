"""Old names of options, and names that other tools use, with the option of today.

Old config files, command lines and checkpoints keep working: each layer of a config (a file, an override) is translated
before the layers are merged. A note tells the new name, once.
"""

import os
import sys
import zlib

from detector.errors import BadInput

# Options of `data` that a config.yaml or checkpoint of version 0.2 states, all of them.
SAVED_BY_0_2 = {"format", "root", "train", "val", "classes", "cache", "invalid_boxes", "empty_images",
                "unreadable_images", "train_on_crowd", "train_on_difficult"}

# Names of version 0.1 -> the option's name in the same section.
RENAMED = {
    "run.workers": "num_workers", "run.keep": "keep_checkpoints", "run.pictures": "num_val_images",
    "run.stalled_minutes": "hang_timeout_minutes", "run.restarts": "max_requeues",
    "data.faulty_boxes": "invalid_boxes", "data.broken_images": "unreadable_images",
    "batch.groups": "aspect_ratio_groups", "batch.canvases": "pad_to", "batch.frame": "crop_to_group",
    "batch.per_process": "micro_batch_size",
    "augment.short_sides": "min_size", "augment.long_side": "max_size", "augment.most_boxes": "max_boxes",
    "augment.flip": "hflip_prob", "augment.photometric": "color_jitter_prob", "augment.jitter": "scale_jitter",
    "model.body": "backbone", "model.pixels": "pixel_format", "model.pyramid_width": "fpn_channels",
    "model.head_width": "box_head_dim", "model.canvas_multiple": "size_divisor", "model.pooling": "roi_pooling",
    "model.pooling_size": "roi_pooling_size", "model.plus_one": "inclusive_boxes",
    "model.rpn.batch": "batch_size_per_image", "model.rpn.positive_share": "positive_fraction",
    "model.rpn.positive_iou": "fg_iou_thresh", "model.rpn.negative_iou": "bg_iou_thresh",
    "model.rpn.box_beta": "smooth_l1_beta", "model.rpn.before_nms_train": "pre_nms_top_n_train",
    "model.rpn.before_nms_eval": "pre_nms_top_n_eval", "model.rpn.after_nms_train": "post_nms_top_n_train",
    "model.rpn.after_nms_eval": "post_nms_top_n_eval", "model.rpn.nms_iou": "nms_thresh",
    "model.rpn.score": "score_thresh", "model.rpn.before_nms_per": "pre_nms_top_n_per",
    "model.rpn.after_nms_per": "post_nms_top_n_per", "model.rpn.width": "conv_channels",
    "model.rpn.two_way": "softmax_objectness", "model.rpn.straddling": "train_on_crossing_anchors",
    "model.rpn.best_anchor": "allow_low_quality_matches", "model.rpn.box_mean": "box_loss_normalizer",
    "model.roi.batch": "batch_size_per_image", "model.roi.positive_share": "positive_fraction",
    "model.roi.positive_iou": "fg_iou_thresh", "model.roi.negative_iou": "bg_iou_thresh",
    "model.roi.box_beta": "smooth_l1_beta", "model.roi.background_from": "bg_iou_thresh_low",
    "model.roi.replacement": "sample_with_replacement", "model.roi.box_weights": "bbox_reg_weights",
    "model.roi.init": "predictor_init",
    "optim.rate": "lr", "optim.decay": "weight_decay", "optim.decay_norms": "weight_decay_norm",
    "optim.decay_biases": "weight_decay_bias", "optim.bias_rate": "bias_lr_factor",
    "optim.clip_norm": "grad_clip_norm", "optim.compress": "bf16_allreduce", "optim.ema": "ema_decay",
    "optim.reference_batch": "reference_batch_size",
    "schedule.shape": "lr_schedule", "schedule.patience": "early_stopping_patience",
    "evaluate.detections": "max_detections", "evaluate.nms_iou": "nms_thresh", "evaluate.score": "score_thresh",
    "evaluate.short_side": "min_size", "evaluate.long_side": "max_size", "evaluate.batch": "batch_size",
    "evaluate.best": "best_metric", "evaluate.loss": "compute_loss",
}
# Values of version 0.1 that are written differently today, by the old path: text in lower case -> value of today.
VALUES = {
    "batch.frame": {"own": False, "chunk": True},
    "batch.canvases": {"own": "batch"},
    "model.heads": {"ours": "native"},
    "optim.decay_norms": {"true": -1.0, "false": 0.0},
    "optim.decay_biases": {"true": -1.0, "false": 0.0},
    "optimizer": {"sgd": "sgd", "adamw": "adamw"},  # also SGD
    "optim.name": {"sgd": "sgd", "adamw": "adamw"},
}
# Names that other tools use for exactly one option.
HABITS = {
    "lr": "optim.lr", "lr0": "optim.lr", "learning_rate": "optim.lr", "optim.learning_rate": "optim.lr",
    "momentum": "optim.momentum", "weight_decay": "optim.weight_decay", "optimizer": "optim.optimizer",
    "optim.name": "optim.optimizer",
    "epochs": "schedule.epochs", "max_epochs": "schedule.epochs", "max_iter": "schedule.steps",
    "max_steps": "schedule.steps", "warmup_steps": "schedule.warmup_steps",
    "patience": "schedule.early_stopping_patience", "batch_size": "batch.size",
    "workers": "run.num_workers", "num_workers": "run.num_workers", "device": "run.device",
    "precision": "run.precision", "project": "run.folder", "name": "run.name",
    "weights": "model.weights", "backbone": "model.backbone",
    "SOLVER.BASE_LR": "optim.lr", "SOLVER.MOMENTUM": "optim.momentum", "SOLVER.WEIGHT_DECAY": "optim.weight_decay",
    "SOLVER.IMS_PER_BATCH": "batch.size", "SOLVER.MAX_ITER": "schedule.steps", "SOLVER.GAMMA": "schedule.gamma",
    "SOLVER.WARMUP_ITERS": "schedule.warmup_steps", "SOLVER.CHECKPOINT_PERIOD": "run.save_every_steps",
    "MODEL.WEIGHTS": "model.weights", "DATALOADER.NUM_WORKERS": "run.num_workers", "OUTPUT_DIR": "run.folder",
    "SEED": "seed", "tta": "evaluate.tta",
}
# Names of other tools without a single counterpart, in lower case, with or without their section: what to do instead.
# {value} is the value that was given.
ADVICE = {
    "imgsz": "set augment.min_size=[{value}] augment.max_size=0 evaluate.min_size={value} evaluate.max_size=0",
    "amp": "set run.precision=bf16 or run.precision=fp16",
    "fp16": "set run.precision=fp16",
    "bf16": "set run.precision=bf16",
    "freeze": "set model.frozen_stages, such as model.frozen_stages=2",
    "freeze_at": "set model.frozen_stages, such as model.frozen_stages=2",
    "resume": "nothing needs to be set; the same command resumes a run from its newest checkpoint",
    "num_classes": "nothing needs to be set; the classes are those of the training annotations, and data.classes "
                   "selects some of them",
    "nc": "nothing needs to be set; the classes are those of the training annotations",
    "pretrained": "set model.weights=imagenet, model.weights=coco or a file; with nothing behind the =, random weights",
    "solver.steps": "set schedule.milestones, in epochs, such as schedule.milestones=[8, 11]",
    "min_size_train": "set augment.min_size, such as augment.min_size=[640, 800]",
    "max_size_train": "set augment.max_size, such as augment.max_size=1333",
    "min_size_test": "set evaluate.min_size, such as evaluate.min_size=800",
    "max_size_test": "set evaluate.max_size, such as evaluate.max_size=1333",
    "score_thresh_test": "set evaluate.score_thresh, such as evaluate.score_thresh=0.05",
    "test.aug.enabled": "set evaluate.tta=hflip", "test.aug.flip": "set evaluate.tta=hflip",
    "eval_period": "set evaluate.every_epochs, such as evaluate.every_epochs=1",
}
METRICS = {"rate": "lr"}  # keys of metrics.jsonl of version 0.1 -> today
PRINTED_NOTES = "FLEET_RCNN_PRINTED_NOTES"  # environment variable: checksums of notes that are printed already
OLD_NAMES = {old: f"{old.rpartition('.')[0]}.{name}" for old, name in RENAMED.items()}  # old path -> path of today


def translate(tree: dict, source: str) -> tuple[dict, dict[str, str]]:
    """Translates one layer of a config to the option names of today.

    Args:
        tree: nested dicts of one YAML file, override or checkpoint; values of any type. It is not changed.
        source: the file or command line, named in the error.

    Returns:
        The translated copy, and the path of today by each old path that was found.

    Raises:
        BadInput: the layer states an option under its old and its new name.
    """
    tree, renames = copy_sections(tree), {}
    for old, new in {**HABITS, **OLD_NAMES, "model.heads": "model.heads"}.items():
        section, name = find_section(tree, old)
        if section is None or name not in section or ("." not in old and isinstance(section[name], dict)):
            continue
        value = section.pop(name)
        value = VALUES.get(old, {}).get(str(value).lower(), value)
        target, new_name = find_section(tree, new, create=True)
        if target is None:  # a plain value is in the section's place, which is reported later
            section[name] = value
            continue
        if new_name in target:
            raise BadInput(f"{source}: {old} and {new} are the same option; leave {old} out")
        target[new_name] = value
        if old != new:
            renames[old] = new
    for name in [name for name in tree if name.isupper() and tree[name] == {}]:
        del tree[name]  # a section of another tool, such as SOLVER, of which all options were moved
    add_newer_options(tree)
    return tree, renames


def add_newer_options(tree: dict) -> None:
    """Adds what newer options stand for in the config of a run of an older version, which states all of its options."""
    data = tree.get("data")
    if isinstance(data, dict) and data.keys() >= SAVED_BY_0_2:
        data.setdefault("duplicates", "keep")
        if data.get("val") == [""]:  # what `val: null` became in earlier versions
            data["val"] = []


def translate_saved(tree: dict, source: str) -> dict:
    """Returns a config that a program saved, in full, with the option names of today.

    Version 0.1 also saved `recipe`, which has no effect where every option is stated.
    """
    tree, _ = translate(tree, source)
    tree.pop("recipe", None)
    return tree


def copy_sections(tree: dict) -> dict:
    return {key: copy_sections(value) if isinstance(value, dict) else value for key, value in tree.items()}


def find_section(tree: dict, path: str, create: bool = False) -> tuple[dict | None, str]:
    """Returns the section that holds an option, and the option's name in it.

    The section is None if it is missing (with `create`, it is added) or if a plain value is in its place.
    """
    *sections, name = path.split(".")
    for section in sections:
        if create:
            tree.setdefault(section, {})
        tree = tree.get(section)
        if not isinstance(tree, dict):
            return None, name
    return tree, name


def is_saved_by_0_1(renames: dict[str, str]) -> bool:
    """Returns whether a file stated every option that was renamed, as a config.yaml saved by version 0.1 does."""
    return set(renames) >= set(OLD_NAMES)


def rename_notes(renames: dict[str, str], source: str) -> list[str]:
    """Returns the notes about the old names in one file (`source`, empty for the command line), each to be printed."""
    if is_saved_by_0_1(renames):
        return ["a config.yaml saved by version 0.1 is read with the option names of today"]
    prefix = f"{source}: " if source else ""
    return [prefix + (f"{old} is now called {new}" if old in OLD_NAMES else f"{old} is called {new} here")
            for old, new in renames.items()]


def print_once(notes: list[str]) -> None:
    """Prints notes to stderr that neither this process nor a parent process has printed; only rank 0 prints."""
    printed = os.environ.get(PRINTED_NOTES, "").split()
    for note in notes:
        checksum = f"{zlib.crc32(note.encode()):08x}"
        if checksum not in printed:
            printed.append(checksum)
            if "TORCHELASTIC_RUN_ID" not in os.environ or os.environ.get("RANK", "0") == "0":
                print(f"note: {note}", file=sys.stderr)
    os.environ[PRINTED_NOTES] = " ".join(printed)


def advice_for(path: str, value: object = "") -> str:
    """Returns what to do instead of setting another tool's option; empty if the name is unknown."""
    path = path.lower()
    advice = ADVICE.get(path) or ADVICE.get(path.split(".")[-1], "")
    return advice.replace("{value}", str(value))


def advice_for_flag(flag: str) -> str:
    """Returns what to write instead of another tool's command-line flag, such as --lr; empty if it is unknown."""
    name, _, value = flag.lstrip("-").replace("-", "_").partition("=")
    if name in HABITS:
        return f"write {HABITS[name]}={value or '...'}"
    return advice_for(name, value or "...")
