"""The data as the network will see it, and anchors over it: in numbers on the terminal, and as a page to look at."""

from pathlib import Path

import numpy as np

from detector.config.load import load_config
from detector.config.schema import Config
from detector.data.image_io import read_image
from detector.data.read import describe, read_splits, select_for_training
from detector.errors import BadInput
from detector.inspection.anchor_coverage import Reach, propose, reach
from detector.inspection.dataset_stats import MEASURES, histograms, measures, table
from detector.inspection.network_input import Seen, padding, see_batches
from detector.model.anchors import AnchorPlan, plan_anchors
from detector.report.page.build import write_page
from detector.structures import Dataset, Resize, scale_and_size
from detector.visualization.thumbnails import thumbnail
from detector.visualization.validation_images import evenly_spaced

SAMPLED = 300      # images that are augmented for the numbers
SHOWN = 6          # batches, or pictures with anchors, on the page
LONG_SIDE = 640    # pixels of a picture on the page
NAMES = ("as annotated", "as the network sees it")
SMALLEST, LARGEST = 3, 10  # octaves of object sides that are told apart: below 8 pixels to 1024 and above


def view(what: str, words: list[str], out: str = "") -> Path:
    """`view CONFIG key=value ...` or `view anchors CONFIG key=value ...`: prints numbers and writes a page.

    CONFIG is a config file, a recipe that ships with the package, or the folder of a run.
    """
    if what != "anchors":
        return view_data(what, words, Path(out or "view.html"))
    if not words or "=" in words[0]:
        raise BadInput("view anchors: of which config? Such as: fleet-rcnn view anchors custom/bccd data.root=/data")
    return view_anchors(words[0], words[1:], Path(out or "anchors.html"))


def training_data(source: str, overrides: list[str]) -> tuple[Config, Dataset]:
    stored = Path(source) / "config.yaml"
    config = load_config(str(stored) if stored.is_file() else source, overrides)
    return config, select_for_training(read_splits(config.data, config.data.train), config.data)


def view_data(source: str, overrides: list[str], path: Path) -> Path:
    """Statistics before and after the transforms, and the first batches as padded."""
    config, data = training_data(source, overrides)
    batches = see_batches(config, data, SAMPLED, SHOWN)
    seen = [one for batch in batches for one in batch]
    before = measures(data.sizes, data.boxes, data.boxes_per_image())
    after = measures(np.array([one.size for one in seen]), np.concatenate([one.boxes for one in seen]),
                     np.array([len(one.boxes) for one in seen]))
    counts = np.bincount(data.labels, minlength=len(data.classes) + 1)[1:]
    order = np.argsort(-counts, kind="stable")
    lost = f"{padding(seen):.1%} of what the network sees is padding"
    print(f"{describe(data)}\nobjects of each class: " + ", ".join(f"{data.classes[i]} {counts[i]}" for i in order))
    print(f"{table(NAMES, [before, after])}\n{NAMES[1]}: the first {len(seen)} images of training, augmented; {lost}")
    write_page(path, "view", data.name, {
        "kind": "data", "title": data.name, "made": f"fleet-rcnn view {source}",
        "facts": [describe(data), *data.warnings],
        "classes": [{"name": data.classes[i], "count": int(counts[i])} for i in order], "objects": len(data.boxes),
        "names": NAMES, "sampled": f"{NAMES[0].capitalize()}: all {len(data)} images. {NAMES[1].capitalize()}: the "
                                   f"first {len(seen)} of training, augmented and resized; {lost}.",
        "histograms": [{"name": name, "about": about,
                        "parts": [vars(part) for part in histograms(name, [before[name], after[name]])]}
                       for name, (about, _) in MEASURES.items()],
        "batches": [{"height": batch[0].canvas[0], "width": batch[0].canvas[1], "padding": padding(batch),
                     "images": [picture(one, data) for one in batch]} for batch in batches[:SHOWN]]})
    print(f"{path}: a page to look at")
    return path


def picture(seen: Seen, data: Dataset) -> dict:
    boxes = [{"at": np.round(box, 1).tolist(), "tag": data.classes[label - 1], "label": int(label)}
             for box, label in zip(seen.boxes, seen.labels)]
    return {"name": Path(data.path(seen.index)).name, "height": seen.canvas[0], "width": seen.canvas[1],
            "inside": seen.size, "jpeg": thumbnail(seen.pixels, LONG_SIDE), "boxes": boxes}


def view_anchors(source: str, overrides: list[str], path: Path) -> Path:
    """How much of the training objects the anchors reach, and a proposal that reaches more."""
    config, data = training_data(source, overrides)
    short = sorted(config.augment.min_size)[len(config.augment.min_size) // 2]
    side = Resize(short, config.augment.max_size)
    multiple = config.model.size_divisor
    boxes, canvases = as_resized(data, side, multiple)
    if not len(boxes):
        raise BadInput(f"{data.name} has no object, so there is nothing for anchors to reach")
    plan = plan_anchors(config.model)
    now = reach(plan, boxes, canvases)
    proposal, better = propose(plan, boxes, canvases)
    sizes, ratios = listed(proposal.anchors.sizes), listed(proposal.anchors.ratios)
    yaml = f"model: {{anchor_sizes: {sizes}, anchor_ratios: {ratios}}}"
    print(f"{describe(data)}; objects as seen at a short side of {short} pixels")
    for name, found, what in (("now", now, plan), ("proposed", better, proposal)):
        print(f"{name:>9}: {found.share(0.5):7.2%} of the objects reached at IoU 0.5, {found.share(0.7):7.2%} at 0.7, "
              f"mean {found.iou.mean():.3f}; sides {listed(what.anchors.sizes)}, "
              f"ratios {listed(what.anchors.ratios)}")
    print("now, by the side of the objects in pixels, at 0.5 and at 0.7:")
    for row in by_side(now, boxes):
        if row["objects"]:
            print(f"{row['name']:>16}: {row['half']:7.2%} and {row['seven']:7.2%} of {row['objects']}")
    print(f"to take the proposal: {yaml}")
    canvas = tuple(map(int, canvases[0]))
    strides = plan.anchors.strides(plan.cells(*canvas), canvas)
    write_page(path, "view", f"Anchors of {Path(source).stem}", {
        "kind": "anchors", "title": f"Anchors of {source} over {data.name}",
        "made": f"fleet-rcnn view anchors {source}",
        "facts": [describe(data), f"Objects as seen at a short side of {short} pixels."], "now": shares(now),
        "proposal": {**shares(better), "yaml": yaml, "better": bool(better.iou.mean() > now.iou.mean())},
        "by_side": by_side(now, boxes),
        "levels": [{"level": level, "stride": down, "objects": int((now.level == level).sum()),
                    "sides": listed(plan.anchors.sizes[level])} for level, (down, _) in enumerate(strides)],
        "pictures": [anchor_picture(index, data, boxes, side, multiple, now, plan)
                     for index in evenly_spaced(len(data), SHOWN)]})
    print(f"{path}: a page to look at")
    return path


def as_resized(data: Dataset, side: Resize, multiple: int) -> tuple[np.ndarray, np.ndarray]:
    """Boxes float64 [N, 4] in network pixels and the canvas int [N, 2] that each lies on, as if it were alone."""
    after = np.array([scale_and_size(int(height), int(width), side)[1] for height, width in data.sizes]).reshape(-1, 2)
    image = data.image_of_box()
    scale = (after / data.sizes)[image]
    return data.boxes * scale[:, [1, 0, 1, 0]], (-(-after // multiple) * multiple)[image]


def shares(found: Reach) -> dict[str, float]:
    return {"half": found.share(0.5), "seven": found.share(0.7), "mean": float(found.iou.mean())}


def by_side(found: Reach, boxes: np.ndarray) -> list[dict]:
    """The shares for each octave of object sides; None where there is no object."""
    side = np.sqrt((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))
    octave = np.clip(np.floor(np.log2(np.maximum(side, 1))), SMALLEST - 1, LARGEST).astype(int)
    rows = []
    for number in range(SMALLEST - 1, LARGEST + 1):
        which = octave == number
        low, high = 2 ** number, 2 ** (number + 1)
        name = f"below {high}" if number < SMALLEST else f"{low} and above" if number == LARGEST else f"{low} to {high}"
        some = bool(which.any())
        rows.append({"name": name, "objects": int(which.sum()), "half": found.share(0.5, which) if some else None,
                     "seven": found.share(0.7, which) if some else None})
    return rows


def anchor_picture(index: int, data: Dataset, boxes: np.ndarray, side: Resize, multiple: int, found: Reach,
                   plan: AnchorPlan) -> dict:
    """An image as resized: one anchor of each kind, and its objects by how well they are reached."""
    rows = np.arange(data.offsets[index], data.offsets[index + 1])
    height, width = (int(side) for side in data.sizes[index])
    _, size = scale_and_size(height, width, side)
    canvas = tuple(-(-side // multiple) * multiple for side in size)
    drawn = [{"at": np.round(box, 1).tolist(), "kind": "c-truth"} for box in one_of_each(plan, canvas)]
    for row in rows:
        iou, (length, ratio) = float(found.iou[row]), found.shape[row]
        kind = "c-right" if iou >= 0.7 else "c-localisation" if iou >= 0.5 else "c-background"
        name = data.classes[data.labels[row] - 1]
        drawn.append({"at": np.round(boxes[row], 1).tolist(), "kind": kind, "tag": f"{iou:.2f}",
                      "title": f"{name}: IoU {iou:.2f} with an anchor of side {length:g}, ratio {ratio:g}"})
    pixels = read_image(data.path(index), (height, width)).permute(1, 2, 0).numpy()
    return {"name": Path(data.path(index)).name, "height": size[0], "width": size[1], "inside": size,
            "jpeg": thumbnail(pixels, LONG_SIDE), "boxes": drawn}


def one_of_each(plan: AnchorPlan, canvas: tuple[int, int]) -> np.ndarray:
    """One anchor of every side and ratio, at the middle cell of its level: [A, 4]."""
    found = []
    for (rows, columns), each, anchors in zip(plan.cells(*canvas), plan.anchors.per_cell(), plan.on_canvas(*canvas)):
        first = (rows // 2 * columns + columns // 2) * each
        found.append(anchors[first:first + each])
    return np.concatenate(found)


def listed(values: tuple) -> str:
    """As YAML has it."""
    return "[" + ", ".join(listed(value) if isinstance(value, tuple) else f"{value:g}" for value in values) + "]"
