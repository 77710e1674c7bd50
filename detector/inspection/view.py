"""The verbs `view` and `anchors`: statistics of the training data and of anchors over it, as text and as a page."""

from pathlib import Path

import numpy as np

from detector.config.load import load_config
from detector.config.schema import Config
from detector.data.image_errors import REMEDY, offer_grey
from detector.data.image_io import GREY, read_image
from detector.data.read import describe, read_train, select_for_training
from detector.data.text_files import printable
from detector.errors import BadInput, count_of
from detector.inspection.anchor_coverage import AnchorCoverage, compute_coverage, propose_anchors
from detector.inspection.dataset_stats import MEASURES, build_histograms, compute_measures, quantile_table
from detector.inspection.network_input import TrainInput, first_train_batches, padding_fraction
from detector.model.anchors import AnchorPlan, plan_anchors
from detector.report.page.build import page_path, write_page
from detector.run.files import CONFIG_FILE
from detector.structures import Dataset, Resize, round_up, scale_and_size
from detector.training.auto_options import resolve_auto
from detector.visualization.thumbnails import encode_thumbnail
from detector.visualization.validation_images import evenly_spaced

NUM_SAMPLED = 300     # images that are augmented for the statistics
NUM_SHOWN = 6         # batches, or images with anchors, on the page
MAX_ERRORS = 10       # unreadable images that the page names
THUMBNAIL_SIDE = 640  # pixels of the long side of an image on the page
TITLES = ("annotated", "network input")
SMALLEST, LARGEST = 3, 10  # octaves of object sizes that have a row: below 8 pixels ... 1024 and above


def view(source: str, overrides: list[str], out: str = "") -> Path:
    """Prints statistics of the training data before and after the transforms, and writes a page with the first batches.

    Args:
        source: a config file, the name of a config that ships with the package, or a run folder.
        overrides: key=value.
        out: the page to write; default: pages/NAME-view.html, see page_path.

    Returns:
        The path of the page.
    """
    config = load_source(source, overrides)
    path = page_path("--out", out, f"{config.run.name}-view")
    config, data = read_training_data(config)
    batches = first_train_batches(config, data, NUM_SAMPLED, NUM_SHOWN)
    inputs = [entry for batch in batches for entry in batch]
    errors = note_unreadable([entry.error for entry in inputs], config, "shown grey, without objects")
    before = compute_measures(data.sizes, data.boxes, data.boxes_per_image())
    after = compute_measures(np.array([entry.size for entry in inputs]),
                             np.concatenate([entry.boxes for entry in inputs]),
                             np.array([len(entry.boxes) for entry in inputs]))
    counts = np.bincount(data.labels, minlength=len(data.classes) + 1)[1:]
    order = np.argsort(-counts, kind="stable")
    padding = f"{padding_fraction(inputs):.1%} of the network input is padding"
    print(f"{describe(data)}\nobjects per class: " + ", ".join(f"{data.classes[i]} {counts[i]}" for i in order))
    print(f"{quantile_table(TITLES, [before, after])}\n"
          f"{TITLES[1]}: the first {len(inputs)} images of training, augmented and resized; {padding}")
    write_page(path, "view", data.name, {
        "kind": "data", "title": data.name, "command": f"fleet-rcnn view {source}",
        "facts": [describe(data), *data.warnings, *errors[:MAX_ERRORS]],
        "classes": [{"name": data.classes[i], "count": int(counts[i])} for i in order], "objects": len(data.boxes),
        "names": TITLES,
        "sampled": f"{TITLES[0].capitalize()}: all {len(data)} images. {TITLES[1].capitalize()}: the first "
                   f"{len(inputs)} images of training, augmented and resized; {padding}.",
        "histograms": [{"name": name, "unit": unit, "parts": [
            vars(part) for part in build_histograms(name, [before[name], after[name]])]}
            for name, (unit, _) in MEASURES.items()],
        "batches": [{"height": batch[0].padded_size[0], "width": batch[0].padded_size[1],
                     "padding": padding_fraction(batch), "images": [input_image(entry, data) for entry in batch]}
                    for batch in batches[:NUM_SHOWN]]})
    print(f"page written: {path}")
    return path


def anchors(source: str, overrides: list[str], out: str = "") -> Path:
    """Prints how well the anchors cover the training objects, with a proposal, and writes a page about it.

    Arguments and result are those of `view`; the default page is pages/NAME-anchors.html.

    Raises:
        BadInput: the training data has no object.
    """
    config = load_source(source, overrides)
    path = page_path("--out", out, f"{config.run.name}-anchors")
    config, data = read_training_data(config)
    min_size = sorted(config.augment.min_size)[len(config.augment.min_size) // 2]
    resize, divisor = Resize(min_size, config.augment.max_size), config.model.size_divisor
    boxes, padded_sizes = resize_all(data, resize, divisor)
    if not len(boxes):
        raise BadInput(f"{data.name} has no object that anchors could cover; name training annotations with objects "
                       "in data.train")
    plan = plan_anchors(config.model)
    current = compute_coverage(plan, boxes, padded_sizes)
    proposed_plan, proposed = propose_anchors(plan, boxes, padded_sizes)
    yaml = (f"model: {{anchor_sizes: {to_yaml_list(proposed_plan.anchors.sizes)}, "
            f"anchor_ratios: {to_yaml_list(proposed_plan.anchors.ratios)}}}")
    by_size = recall_by_size(current, boxes)
    print_coverage(data, min_size, {"current": (plan, current), "proposed": (proposed_plan, proposed)}, by_size, yaml)
    first_size = tuple(map(int, padded_sizes[0]))
    strides = plan.anchors.strides(plan.grid_sizes(*first_size), first_size)
    images = [anchor_image(index, data, boxes, resize, divisor, current, plan)
              for index in evenly_spaced(len(data), NUM_SHOWN)]
    errors = note_unreadable([error for _, error in images], config, "shown grey")
    write_page(path, "view", f"Anchors of {Path(source).stem}", {
        "kind": "anchors", "title": f"Anchors of {source} over {data.name}",
        "command": f"fleet-rcnn anchors {source}",
        "facts": [describe(data), *data.warnings, f"Objects as resized to a short side of {min_size} pixels.",
                  *errors],
        "current": summarize(current),
        "proposed": {**summarize(proposed), "yaml": yaml,
                     "is_better": bool(proposed.iou.mean() > current.iou.mean())},
        "by_size": by_size,
        "levels": [{"level": level, "stride": down, "objects": int((current.level == level).sum()),
                    "sizes": to_yaml_list(plan.anchors.sizes[level])} for level, (down, _) in enumerate(strides)],
        "images": [image for image, _ in images]})
    print(f"page written: {path}")
    return path


def load_source(source: str, overrides: list[str]) -> Config:
    """Returns the config of a config file, a shipped config or a run folder."""
    stored = Path(source) / CONFIG_FILE
    return load_config(str(stored) if stored.is_file() else source, overrides)


def read_training_data(config: Config) -> tuple[Config, Dataset]:
    """Returns the config without `auto`, and the images and objects to train on, labelled as the model sees them."""
    data = select_for_training(read_train(config.data, config.seed), config.data)
    return resolve_auto(config, data, 1)[0], data


def note_unreadable(errors: list[str], config: Config, shown: str) -> list[str]:
    """Prints a note about the images that could not be read; returns the errors of them, as a run on them gives them.

    Args:
        errors: of all images that are shown; "" for an image that could be read.
        shown: how the page shows these images.
    """
    is_refused = config.data.unreadable_images == "refuse"
    errors = [printable(offer_grey(error) if is_refused else error) for error in errors if error]
    if errors:
        count = count_of(len(errors), "image could not be read and is", "images could not be read and are")
        print(f"note: {count} {shown}; first: {errors[0]}")
    return errors


def input_image(entry: TrainInput, data: Dataset) -> dict:
    """Returns the page's data about one image of a padded batch."""
    boxes = [{"at": np.round(box, 1).tolist(), "tag": data.classes[label - 1], "label": int(label)}
             for box, label in zip(entry.boxes, entry.labels)]
    return {"name": Path(data.path(entry.index)).name, "height": entry.padded_size[0], "width": entry.padded_size[1],
            "image_size": entry.size, "jpeg": encode_thumbnail(entry.pixels, THUMBNAIL_SIDE), "boxes": boxes}


def print_coverage(data: Dataset, min_size: int, coverages: dict[str, tuple[AnchorPlan, AnchorCoverage]],
                   by_size: list[dict], yaml: str) -> None:
    print(f"{describe(data)}; objects as resized to a short side of {min_size} pixels")
    for name, (plan, coverage) in coverages.items():
        print(f"{name:>9}: recall {coverage.recall_at(0.5):.2%} at IoU 0.5, {coverage.recall_at(0.7):.2%} at IoU 0.7, "
              f"mean IoU {coverage.iou.mean():.3f}; sizes {to_yaml_list(plan.anchors.sizes)}, "
              f"ratios {to_yaml_list(plan.anchors.ratios)}")
    print("current recall at IoU 0.5 and 0.7, by the size of the objects (square root of the area) in pixels:")
    for row in by_size:
        print(f"{row['name']:>16}: {row['recall50']:7.2%} and {row['recall70']:7.2%} of {row['objects']} objects")
    print(f"config of the proposed anchors: {yaml}")


def resize_all(data: Dataset, resize: Resize, divisor: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the boxes in pixels of the resized images, and for each box the padded size of its image.

    They are float64 [N, 4] and int64 [N, 2]. The padded size is that of a batch of one image.
    """
    sizes = [scale_and_size(int(height), int(width), resize)[1] for height, width in data.sizes]
    sizes = np.array(sizes).reshape(-1, 2)
    image = data.image_of_box()
    scale = (sizes / data.sizes)[image]
    return data.boxes * scale[:, [1, 0, 1, 0]], round_up(sizes, divisor)[image]


def summarize(coverage: AnchorCoverage) -> dict[str, float]:
    return {"recall50": coverage.recall_at(0.5), "recall70": coverage.recall_at(0.7),
            "mean_iou": float(coverage.iou.mean())}


def recall_by_size(coverage: AnchorCoverage, boxes: np.ndarray) -> list[dict]:
    """Returns the recall for each octave of object sizes that has objects."""
    sizes = np.sqrt((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))
    octaves = np.clip(np.floor(np.log2(np.maximum(sizes, 1))), SMALLEST - 1, LARGEST).astype(int)
    rows = []
    for octave in range(SMALLEST - 1, LARGEST + 1):
        mask = octaves == octave
        low, high = 2 ** octave, 2 ** (octave + 1)
        name = f"below {high}" if octave < SMALLEST else f"{low} and above" if octave == LARGEST else f"{low} to {high}"
        if mask.any():
            rows.append({"name": name, "objects": int(mask.sum()), "recall50": coverage.recall_at(0.5, mask),
                         "recall70": coverage.recall_at(0.7, mask)})
    return rows


def anchor_image(index: int, data: Dataset, boxes: np.ndarray, resize: Resize, divisor: int, coverage: AnchorCoverage,
                 plan: AnchorPlan) -> tuple[dict, str]:
    """Returns the page's data about a resized image, and why it could not be read, "" if it could.

    The data are one anchor of each kind, and the image's objects by their best IoU.
    """
    rows = np.arange(data.offsets[index], data.offsets[index + 1])
    height, width = (int(length) for length in data.sizes[index])
    _, size = scale_and_size(height, width, resize)
    padded_size = round_up(size[0], divisor), round_up(size[1], divisor)
    shapes = [{"at": np.round(box, 1).tolist(), "kind": "anchor"} for box in example_anchors(plan, padded_size)]
    for row in rows:
        iou, (anchor_size, ratio) = float(coverage.iou[row]), coverage.size_ratio[row]
        kind = "iou-high" if iou >= 0.7 else "iou-medium" if iou >= 0.5 else "iou-low"
        name = data.classes[data.labels[row] - 1]
        shapes.append({"at": np.round(boxes[row], 1).tolist(), "kind": kind, "tag": f"{iou:.2f}",
                       "title": f"{name}: IoU {iou:.2f} with an anchor of size {anchor_size:g}, ratio {ratio:g}"})
    pixels, error = read_or_grey(data.path(index), (height, width))
    return {"name": Path(data.path(index)).name, "height": size[0], "width": size[1], "image_size": size,
            "jpeg": encode_thumbnail(pixels, THUMBNAIL_SIDE), "boxes": shapes}, error


def read_or_grey(path: str, size: tuple[int, int]) -> tuple[np.ndarray, str]:
    """Returns an image, uint8 [H, W, 3], and ""; or grey pixels of its shape, and why it could not be read."""
    try:
        return read_image(path, size, remedy=REMEDY).permute(1, 2, 0).numpy(), ""
    except BadInput as error:
        scale = min(1, THUMBNAIL_SIDE / max(size))
        return np.full((*(max(1, round(length * scale)) for length in size), 3), GREY, np.uint8), str(error)


def example_anchors(plan: AnchorPlan, padded_size: tuple[int, int]) -> np.ndarray:
    """Returns one anchor of every size and ratio, at the middle cell of its level, float32 [A, 4]."""
    examples = []
    for (rows, columns), per_cell, level in zip(plan.grid_sizes(*padded_size), plan.anchors.num_anchors_per_location(),
                                                plan.all_anchors(*padded_size)):
        first = (rows // 2 * columns + columns // 2) * per_cell
        examples.append(level[first:first + per_cell])
    return np.concatenate(examples)


def to_yaml_list(values: tuple) -> str:
    return "[" + ", ".join(to_yaml_list(value) if isinstance(value, tuple) else f"{value:g}" for value in values) + "]"
