"""The annotation formats that `data.format` names: one reader a file, listed in FORMATS."""

from dataclasses import dataclass
from typing import Callable

from detector.config.parsing import did_you_mean
from detector.data.formats import coco, imagenet_det, per_image_json, shapes, visual_genome, voc, yolo
from detector.errors import BadInput
from detector.structures import Dataset


@dataclass(frozen=True)
class Format:
    """How to read one annotation format.

    read: (root, split) -> Dataset; raises BadInput for annotations that cannot be used. With a third parameter, images,
        the option `data.images` can be used, in which ~ is expanded.
    sources: (root, split) -> the files that `read` reads; the index cache is renewed when one of them changes. May have
        the third parameter, too.
    prepare: (root) -> None; generates the data set if it is missing (only shapes does).
    default_root: value of `data.root` if that is empty.
    boxes_in_pixels: `read` gives pixels, whatever the unit of the annotations; else all boxes of a data set that lie in
        the first pixel of their image are taken for fractions of width and height.
    """

    read: Callable[..., Dataset]
    sources: Callable[..., list[str]]
    prepare: Callable[[str], None] = lambda root: None
    default_root: str = ""
    boxes_in_pixels: bool = False


# To add one: FORMATS["mine"] = Format(read, sources), before the configuration is used.
FORMATS: dict[str, Format] = {
    "coco": Format(coco.read, coco.sources),
    "voc": Format(voc.read, voc.sources),
    "yolo": Format(yolo.read, yolo.sources, boxes_in_pixels=True),
    "visual_genome": Format(visual_genome.read, visual_genome.sources),
    "imagenet_det": Format(imagenet_det.read, imagenet_det.sources),
    "per_image_json": Format(per_image_json.read, per_image_json.sources),
    "shapes": Format(coco.read, coco.sources, shapes.draw_if_missing, "data/shapes"),
}


def find_format(name: str) -> Format:
    """Returns the format of this name. Raises BadInput that lists all names for one that is not in FORMATS."""
    if name not in FORMATS:
        raise BadInput(f"unknown data.format={name}{did_you_mean(name, FORMATS)}. Set it to one of: "
                       + ", ".join(("auto", *FORMATS)))
    return FORMATS[name]
