"""A trained detector on images of one's own: pictures with boxes, and one JSON for all of them."""

import json
import os
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from detector.data.files import ENDINGS, read_image
from detector.draw import draw_boxes
from detector.errors import BadInput
from detector.inference import find_checkpoint, load_detector, predict_batch
from detector.journal import write_whole
from detector.model.input import Side


def predict(run: str, source: str, device: torch.device, score: float, out: str, which: str = "best") -> Path:
    """Draws `source` (an image or a folder of images) into a folder and writes detections.json beside the pictures.

    A broken image is reported and the rest goes on. Raises BadInput where there is no image at all.
    """
    paths = image_files(source)
    model, config, classes, _ = load_detector(find_checkpoint(run, which), device)
    folder = Path(out) if out else Path(run) / "predictions"
    if os.path.isdir(source) and folder.resolve() == Path(source).resolve():
        raise BadInput(f"--out {folder}: this is the folder of the images; drawing there would replace them")
    model.roi_heads.score_thresh = min(model.roi_heads.score_thresh, score)
    side, found = Side(config.evaluate.short_side, config.evaluate.long_side), {}
    base = source if os.path.isdir(source) else os.path.dirname(source)
    for path in tqdm(paths, unit="image", disable=None):
        try:
            image = read_image(path)
        except BadInput as error:
            tqdm.write(f"left out: {error}")
            continue
        detections = {key: value.numpy() for key, value in
                      predict_batch(model, [image], None, side, config.run.precision, device)[0][0].items()}
        keep = detections["scores"] >= score
        detections = {key: value[keep] for key, value in detections.items()}
        name = os.path.relpath(path, base)
        picture = draw_boxes(image.permute(1, 2, 0).numpy(), detections["boxes"], detections["labels"], classes,
                             detections["scores"])
        target = folder / (name if name.endswith(".jpg") else f"{name}.jpg")
        if target.resolve() == Path(path).resolve():
            raise BadInput(f"--out {folder}: this is the folder of {path}; drawing there would replace it")
        target.parent.mkdir(parents=True, exist_ok=True)
        picture.save(target, quality=92)
        found[name] = rows(detections, classes)
    if not found:
        raise BadInput(f"no image below {source} could be read")
    said = {"classes": classes, "score": score, "images": found}
    write_whole(folder / "detections.json", json.dumps(said, indent=1) + "\n")
    count = sum(map(len, found.values()))
    print(f"{count} objects in {len(found)} images: pictures and detections.json are in {folder}")
    return folder


def image_files(source: str) -> list[str]:
    """The image itself, or every image below a folder, in the order of their names."""
    if os.path.isfile(source):
        return [source]
    if not os.path.isdir(source):
        raise BadInput(f"no such image or folder: {source}")
    paths = sorted(os.path.join(folder, name) for folder, _, names in os.walk(source) for name in names
                   if name.lower().endswith(ENDINGS))
    if not paths:
        raise BadInput(f"no image in {source}: names that end in {', '.join(ENDINGS)} are looked for")
    return paths


def rows(detections: dict[str, np.ndarray], classes: tuple[str, ...]) -> list[dict]:
    """Detections of one image for the JSON, the best first; box is x1, y1, x2, y2 in pixels."""
    return [{"class": classes[int(label) - 1], "score": round(float(score), 4),
             "box": [round(float(value), 2) for value in box]}
            for box, score, label in zip(detections["boxes"], detections["scores"], detections["labels"])]
