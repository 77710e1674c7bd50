"""Every option once: type, default, what is allowed, unit and reason. Frozen; nobody writes to a config.

A YAML file or the command line names an option by its path, such as `optim.rate`. `python -m detector options`
prints this page as a table.
"""

from dataclasses import dataclass

from detector.config.fields import option, section
from detector.config.model_schema import Model, model_contradictions

METRICS = {"coco": ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"),
           "voc": ("AP", "AP_11point"),
           "visual_genome": ("AP", "AP_weighted")}  # what an evaluation gives, the headline first


@dataclass(frozen=True)
class Run:
    name: str = option("", "folder of the run below run.folder; empty: the name of the config file")
    folder: str = option("runs", "where runs live")
    device: str = option("auto", "auto: GPUs where there are any", choices=("auto", "cpu", "cuda"))
    precision: str = option("fp32", "of the forward pass; fp16 scales its loss", choices=("fp32", "bf16", "fp16"))
    channels_last: bool = option(True, "memory layout of images and weights, same numbers to 1e-5; false: never. "
                                "true: on GPUs and on CPUs with 512-bit instructions, where it is faster")
    compile: str = option("off", "torch.compile of backbone and heads. default: fused operations; reduce-overhead: on "
                          "GPUs also CUDA graphs. The first steps take a minute; batch.canvases=group keeps it at that",
                          choices=("off", "default", "reduce-overhead"))
    workers: int = option(2, "loader processes for each training process; 0 loads in the step itself", low=0)
    log_every_steps: int = option(20, "steps between two lines of metrics.jsonl", low=1)
    save_every_steps: int = option(500, "steps between two checkpoints", low=1)
    keep: int = option(2, "newest checkpoints that stay on disk, beside the best", low=1)
    pictures: int = option(8, "validation images drawn at each evaluation, the same ones each time", low=0)
    stalled_minutes: float = option(5.0, "without progress, after which every rank leaves its Python stacks in the "
                                    "run folder and rank 0 says who is late; 0: never", low=0)
    restarts: int = option(100, "how often Slurm may start the run again; one that brings no step forward ends it, too",
                           low=0)
    timeout_minutes: float = option(10.0, "how long a rank waits for the others before it gives up", low=0.1)


@dataclass(frozen=True)
class Data:
    format: str = option("coco", "layout of the annotations", choices=(
        "coco", "voc", "visual_genome", "imagenet_det", "per_image_json", "shapes"))
    root: str = option("", "folder that holds images and annotations")
    train: tuple[str, ...] = option(("train",), "split names, or annotation files below data.root")
    val: tuple[str, ...] = option(("val",), "the same, for evaluation; may be empty")
    classes: tuple[str, ...] = option((), "class names in order; empty: those of the training annotations; "
                                          "[voc]: the 20 of PASCAL VOC")
    cache: str = option("~/.cache/fleet-rcnn", "folder of the index caches")
    faulty_boxes: str = option("clip", "boxes outside their image, or without area. clip: cut to the image, leave out "
                               "what has no area; drop: leave out; refuse: stop", choices=("clip", "drop", "refuse"))
    empty_images: str = option("keep", "training images without an object", choices=("keep", "drop"))
    broken_images: str = option("refuse", "images that cannot be read. grey: a grey picture without objects stands in, "
                                "and is counted", choices=("refuse", "grey"))
    train_on_crowd: bool = option(False, "COCO crowd regions as training objects")
    train_on_difficult: bool = option(False, "VOC difficult objects as training objects")


@dataclass(frozen=True)
class Batch:
    size: int = option(16, "images of one optimiser step, over all processes; 0: per_process x processes", low=0)
    per_process: int = option(2, "images a process holds at once; gradients of the rest are accumulated", low=1)
    groups: str = option("shuffled", "shuffled: ranges of aspect ratio, mixed anew each epoch; static: chunks of the "
                         "images sorted by ratio, the same in every epoch, the widest rest never trains",
                         choices=("shuffled", "static"))
    frame: str = option("own", "own: each image keeps its size; chunk: all images of a static chunk are cut and padded "
                        "to one ratio, and the padding counts as image", choices=("own", "chunk"))
    canvases: str = option("own", "own: as large as the images of a batch need; group: as large as any image of their "
                           "range of aspect ratio needs, so that shapes repeat: for run.compile, at some more padding",
                           choices=("own", "group"))


@dataclass(frozen=True)
class Augment:
    flip: float = option(0.5, "probability of a horizontal flip", low=0, high=1)
    short_sides: tuple[int, ...] = option((800,), "short side in pixels; one is drawn for each step")
    mirrored_copies: bool = option(False, "instead of random flips, every image a second time, mirrored: an epoch has "
                                   "twice as many")
    most_boxes: int = option(0, "a random choice of so many objects where an image has more; 0: all of them", low=0)
    long_side: int = option(1333, "cap of the long side, pixels; 0: none", low=0)
    jitter: tuple[float, ...] = option((1.0, 1.0), "scale jitter, from and to: above 1 zooms into a crop, below 1 "
                                       "shrinks the image on its canvas")
    reduced_jpegs: bool = option(False, "decode training JPEGs at 1/2, 1/4 or 1/8 where that is no smaller than the "
                                 "network sees them; faster from 1/4 on, pixels differ by some grey levels")
    photometric: float = option(0.0, "probability of each of: brightness, contrast, saturation, hue", low=0, high=1)


@dataclass(frozen=True)
class Optim:
    rate: float = option(0.02, "learning rate at reference_batch images a step; follows batch.size linearly", low=0)
    reference_batch: int = option(16, "the global batch that rate and schedule.warmup_steps are stated for", low=1)
    momentum: float = option(0.9, "of SGD", low=0, high=0.9999)
    decay: float = option(1e-4, "weight decay", low=0)
    decay_norms: bool = option(True, "weight decay on the weights and biases of norms")
    decay_biases: bool = option(True, "weight decay on biases")
    bias_rate: float = option(1.0, "biases learn this many times as fast", low=0)
    clip_norm: float = option(0.0, "largest norm of the whole gradient; 0: no limit", low=0)
    compress: bool = option(False, "gradients travel between processes as bf16: half the bytes, 8 bits of each number")
    ema: float = option(0.0, "decay of an average of the weights, used in evaluation; 0: none", low=0, high=0.999999)


@dataclass(frozen=True)
class Schedule:
    epochs: float = option(12.0, "passes over the training images", low=0)
    steps: int = option(0, "optimiser steps; 0: schedule.epochs decides", low=0)
    shape: str = option("milestones", "how the rate falls; periodic: at the start of each epoch e = 1, 2, ... that "
                        "schedule.period + 1 divides", choices=("milestones", "cosine", "periodic"))
    period: int = option(5, "periodic: the first drop comes after so many epochs, as lr_decay of the published tables",
                         low=1)
    milestones: tuple[float, ...] = option((8.0, 11.0), "epochs at which the rate is multiplied by gamma")
    gamma: float = option(0.1, "factor at a milestone", low=0, high=1)
    warmup_steps: int = option(1000, "steps of linear warm-up at reference_batch; fewer steps at a larger batch", low=0)
    warmup_factor: float = option(0.001, "rate at step 0, as a share", low=0, high=1)
    patience: int = option(0, "stop after this many evaluations without a better evaluate.best; 0: never", low=0)


@dataclass(frozen=True)
class Evaluate:
    every_epochs: float = option(1.0, "epochs between two evaluations; 0: only at the end", low=0)
    metric: str = option("coco", "coco: AP over IoU 0.50 to 0.95; voc: AP at IoU 0.5, 11 points and area; "
                         "visual_genome: AP at IoU 0.5, a class without objects counts 0", choices=tuple(METRICS))
    best: str = option("AP", "the metric that best.pt and schedule.patience follow; the more the better")
    batch: int = option(2, "images a process predicts at once", low=1)
    short_side: int = option(800, "pixels", low=32)
    long_side: int = option(1333, "cap, pixels; 0: none", low=0)
    score: float = option(0.05, "detections below this score are left out", low=0, high=1)
    nms_iou: float = option(0.5, "overlap above which NMS removes the weaker detection of a class", low=0, high=1)
    detections: int = option(100, "most detections of one image", low=1)
    loss: bool = option(True, "also compute the validation loss")


@dataclass(frozen=True)
class Config:
    run: Run = section(Run)
    data: Data = section(Data)
    batch: Batch = section(Batch)
    augment: Augment = section(Augment)
    model: Model = section(Model)
    optim: Optim = section(Optim)
    schedule: Schedule = section(Schedule)
    evaluate: Evaluate = section(Evaluate)
    recipe: str = option("modern", "what an option is that nobody states. modern: as listed here; original: as in the "
                         "published tables, configs/recipe/original.yaml", choices=("modern", "original"))
    seed: int = option(0, "of everything random", low=0)


def contradictions(config: Config) -> list[str]:
    """Values that are allowed alone and not together, one sentence each; the rest is checked option by option."""
    found = []
    sides = config.augment.short_sides
    if not sides or min(sides) < 32:
        found.append(f"augment.short_sides={list(sides)}: at least one, each 32 pixels or more")
    low, high = config.augment.jitter if len(config.augment.jitter) == 2 else (0, 0)
    if not 0.1 <= low <= high <= 4:
        found.append(f"augment.jitter={list(config.augment.jitter)}: two numbers, 0.1 <= from <= to <= 4")
    if not config.data.train:
        found.append("data.train=[]: at least one split is needed")
    if not config.data.root and config.data.format != "shapes":
        found.append("data.root='': name the folder of the data set, for example data.root=/data/coco")
    found += [*model_contradictions(config.model), *feeding_contradictions(config)]
    if config.evaluate.best not in METRICS[config.evaluate.metric]:
        found.append(f"evaluate.best={config.evaluate.best}: evaluate.metric={config.evaluate.metric} gives "
                     + ", ".join(METRICS[config.evaluate.metric]))
    if config.schedule.epochs == 0 and config.schedule.steps == 0:
        found.append("schedule.epochs=0: nothing to train; give epochs, or schedule.steps")
    return found


def feeding_contradictions(config: Config) -> list[str]:
    """The same for how images reach the network."""
    found, augment = [], config.augment
    for path, cap in (("augment.long_side", augment.long_side), ("evaluate.long_side", config.evaluate.long_side)):
        if 0 < cap < 32:
            found.append(f"{path}={cap}: 32 pixels or more, or 0 for no cap")
    if augment.mirrored_copies and augment.flip:
        found.append(f"augment.mirrored_copies with augment.flip={augment.flip:g}: copies would be flipped back; set "
                     "augment.flip=0")
    if config.batch.frame == "chunk":
        if config.batch.groups != "static":
            found.append(f"batch.frame=chunk with batch.groups={config.batch.groups}: only a static chunk has a ratio; "
                         "set batch.groups=static")
        if len(augment.short_sides) > 1 or set(augment.jitter) != {1}:
            found.append(f"batch.frame=chunk with augment.short_sides={list(augment.short_sides)} and augment.jitter="
                         f"{list(augment.jitter)}: a frame is cut in pixels of one size; give one side, and no jitter")
        if config.batch.canvases == "group":
            found.append("batch.frame=chunk with batch.canvases=group: a frame is a canvas already; set "
                         "batch.canvases=own")
        if augment.reduced_jpegs:
            found.append("batch.frame=chunk with augment.reduced_jpegs=true: a frame is cut from the whole image; set "
                         "augment.reduced_jpegs=false")
    return found
