"""The names under which TensorBoard, MLflow and W&B show the numbers of a run: "SECTION/NAME".

These programs sort sections by name, so that the losses are shown first: loss, metrics, optimizer, per class AP, plots,
speed and memory, total cost, validation.
"""

LOSS_SECTION = {"train": "loss/train", "evaluation": "loss/validation"}
SECTIONS = {"train": "speed and memory", "evaluation": "metrics", "cost": "total cost"}
OPTIMIZER_VALUES = ("epoch", "lr", "gradient_norm")
BY_CLASS = " by class"      # end of the kind that holds a metric of each class
BEST_NAME = "best so far"  # the best value of evaluate.best_metric up to each evaluation


def tag_of(kind: str, name: str) -> str:
    """Returns the tag of a number; for `kind` see Logger.scalars."""
    if kind in LOSS_SECTION and name.startswith("loss"):
        return LOSS_SECTION[kind] + name.removeprefix("loss")
    if kind == "train" and name in OPTIMIZER_VALUES:
        return f"optimizer/{name}"
    if kind.endswith(BY_CLASS):
        return f"per class {kind.removesuffix(BY_CLASS)}/{name}"
    return f"{SECTIONS.get(kind, kind)}/{name}"


def best_metric_of(options: dict[str, object]) -> str:
    """Returns the metric that decides which evaluation is the best."""
    return str(options.get("evaluate.best_metric", "AP"))
