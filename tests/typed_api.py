"""Not a test: uses the public API as a typed program does; `make lint` checks the types with mypy."""

import numpy as np

from detector import build_model, coco_metrics, evaluate, load, load_config, read_dataset, train


def black_image() -> np.ndarray:
    return np.zeros((64, 64, 3), np.uint8)


def use_everything(run: str) -> float:
    config = load_config("custom/bccd", ["data.root=/data/bccd"])
    outcome: str = train(config).value
    evaluation = evaluate(run, ["evaluate.score_thresh=0.01"])
    predictor = load(run, checkpoint="last", device="cpu")
    detections = predictor("photo.jpg", score=0.5)
    boxes: np.ndarray = load("coco")(["photo.jpg", black_image()], slice=640, overlap=0.3)[0].boxes
    names: tuple[str, ...] = detections.names
    dataset = read_dataset(config.data, "val")
    parameters = sum(parameter.numel() for parameter in build_model(config, len(dataset.classes)).parameters())
    print(outcome, boxes.shape, names, parameters, coco_metrics)
    return evaluation.metrics["AP"] if evaluation is not None else -1.0
