"""Old names of options, and names that other tools use, with the option of today.

Old configs, command lines and checkpoints keep working: each layer of a config is translated before layers are merged.
"""

import os
import sys

from detector.errors import BadInput

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
# Values of version 0.1 that are written differently today, by the new path.
VALUES = {
    "batch.crop_to_group": {"own": "false", "chunk": "true"},
    "batch.pad_to": {"own": "batch"},
    "model.heads": {"ours": "native"},
    "optim.weight_decay_norm": {"true": "-1", "false": "0"},
    "optim.weight_decay_bias": {"true": "-1", "false": "0"},
}
# Names of other tools that mean exactly one option here; they work without a section.
HABITS = {
    "lr": "optim.lr", "lr0": "optim.lr", "learning_rate": "optim.lr", "momentum": "optim.momentum",
    "weight_decay": "optim.weight_decay", "epochs": "schedule.epochs", "max_iter": "schedule.steps",
    "batch_size": "batch.size", "workers": "run.num_workers", "num_workers": "run.num_workers", "device": "run.device",
    "weights": "model.weights", "backbone": "model.backbone", "patience": "schedule.early_stopping_patience",
    "precision": "run.precision", "project": "run.folder", "name": "run.name",
    "SOLVER.BASE_LR": "optim.lr", "SOLVER.IMS_PER_BATCH": "batch.size", "SOLVER.MAX_ITER": "schedule.steps",
    "MODEL.WEIGHTS": "model.weights", "DATALOADER.NUM_WORKERS": "run.num_workers",
}
# Names of other tools that have no single counterpart: what to write instead.
ADVICE = {
    "imgsz": "set augment.min_size=[640] augment.max_size=0 evaluate.min_size=640 evaluate.max_size=0",
    "amp": "set run.precision=bf16 or run.precision=fp16",
    "fp16": "set run.precision=fp16",
    "freeze": "set model.frozen_stages, such as model.frozen_stages=2",
    "resume": "nothing needs to be set: a run that is started again resumes from its newest checkpoint",
    "num_classes": "nothing needs to be set: the classes are those of the training annotations; data.classes selects some",
    "pretrained": "set model.weights=imagenet, model.weights=coco or a file; model.weights= for random weights",
    "optimizer": "the optimizer is SGD; its options are optim.lr, optim.momentum and optim.weight_decay",
}
METRICS = {"rate": "lr"}  # metrics.jsonl of version 0.1 -> today
TOLD = "FLEET_RCNN_TOLD"  # environment variable: the notes that this process, or the one that started it, has printed


def translate(tree: dict, where: str) -> tuple[dict, list[str]]:
    """Returns one layer of a config with the option names of today, and a sentence for each name that was translated.

    Args:
        tree: nested dicts of one YAML file, command-line override or checkpoint; values of any type.
        where: the file or command line, named in the error.

    Raises:
        BadInput: the layer states an option under its old and its new name.
    """
    tree, notes = copy_sections(tree), []
    for old, new in {**HABITS, **{path: f"{path.rpartition('.')[0]}.{name}" for path, name in RENAMED.items()}}.items():
        *sections, last = old.split(".")
        section = find_section(tree, sections)
        if section is None or last not in section or (not sections and isinstance(section[last], dict)):
            continue
        value = section.pop(last)
        if sections and not section and old in HABITS:
            tree.pop(sections[0], None)  # an empty section of another tool, such as SOLVER
        *sections, last = new.split(".")
        target = find_section(tree, sections, create=True)
        if target is None or last in target:
            raise BadInput(f"{where}: {old} and {new} are the same option; leave {old} out")
        target[last] = value
        notes.append(f"{old} is now called {new}")
    for path, values in VALUES.items():
        *sections, last = path.split(".")
        section = find_section(tree, sections)
        if section is not None and str(section.get(last)).lower() in values:
            section[last] = values[str(section[last]).lower()]
    return tree, notes


def copy_sections(tree: dict) -> dict:
    return {key: copy_sections(value) if isinstance(value, dict) else value for key, value in tree.items()}


def find_section(tree: dict, names: list[str], create: bool = False) -> dict | None:
    """Returns the dict below `tree` at this path; None where there is none, or something else is in its place."""
    for name in names:
        if create:
            tree.setdefault(name, {})
        tree = tree.get(name)
        if not isinstance(tree, dict):
            return None
    return tree


def tell_once(notes: list[str]) -> None:
    """Prints notes that neither this process nor its parent has printed yet; only rank 0 prints."""
    told = os.environ.get(TOLD, "").split("\n")
    for note in notes:
        if note not in told:
            told.append(note)
            if os.environ.get("RANK", "0") == "0":
                print(f"note: {note}", file=sys.stderr)
    os.environ[TOLD] = "\n".join(told)


def advice_for(path: str) -> str:
    """Returns what to write instead of another tool's option name; empty for other names."""
    advice = ADVICE.get(path.split(".")[-1].lower(), "")
    return f": {advice}" if advice else ""
