"""Every option once: type, default, allowed values, unit and reason. Configs are frozen dataclasses.

A YAML file or the command line names an option by its path, such as `optim.lr`. `fleet-rcnn options` prints this list.
"""

from dataclasses import dataclass

from detector.config.fields import AUTO, AUTO_TEXT, option, section
from detector.config.model_schema import Model, model_contradictions
from detector.config.names import RUNS_FOLDER

# The metrics that an evaluation gives, by `evaluate.metric`; the first one is the headline.
METRICS = {"coco": ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"),
           "voc": ("AP", "AP_11point"),
           "visual_genome": ("AP", "AP_weighted")}


@dataclass(frozen=True)
class Run:
    name: str = option("", "name of the run, a folder below run.folder; empty: the name of the config file")
    folder: str = option(RUNS_FOLDER, "folder that holds the run folders", path=True)
    device: str = option("auto", "auto: the GPUs of the machine, or its CPU", choices=("auto", "cpu", "cuda"))
    precision: str = option("fp32", "of the forward pass (autocast); fp16 also scales the loss. auto: bf16 where the "
                            "devices of all processes have instructions for it, else fp32; a resumed run keeps it",
                            choices=(AUTO_TEXT, "fp32", "bf16", "fp16"), auto=True)
    channels_last: bool = option(True, "memory layout of images and weights (same results to 1e-5). true: on GPUs, and "
                                 "on CPUs with 512-bit instructions, where it is faster; false: never")
    compile: str = option("off", "torch.compile of backbone, RPN head and box head. default: fused kernels; "
                          "reduce-overhead: on GPUs also CUDA graphs. The first steps take about a minute; with "
                          "batch.pad_to=group later steps are not compiled again",
                          choices=("off", "default", "reduce-overhead"))
    num_workers: int = option(2, "DataLoader workers of each process; 0: images are loaded between the steps, and "
                              "evaluations are scored there too", low=0)
    log_every_steps: int = option(20, "steps between two logged steps; the first step is logged, too", low=1)
    save_every_steps: int = option(500, "steps between two checkpoints", low=1)
    keep_checkpoints: int = option(2, "newest checkpoints that are kept on disk, beside best.pt", low=1)
    num_val_images: int = option(8, "validation images drawn at each evaluation, always the same ones", low=0)
    plots: bool = option(True, "draw losses, metrics and curves as PNG into plots/ at each evaluation, in a process "
                         "beside the steps, and the confusion matrix into TensorBoard")
    hang_timeout_minutes: float = option(5.0, "minutes without progress after which every rank writes its Python "
                                         "stacks into the run folder and rank 0 names the slowest rank; 0: never",
                                         low=0)
    max_requeues: int = option(100, "how often Slurm may restart the run; a run whose restarts bring no new checkpoint "
                               "is stopped earlier", low=0)
    timeout_minutes: float = option(10.0, "timeout of a collective and of a batch: how long a rank waits for the "
                                    "others or for its own loader", low=0.1)


@dataclass(frozen=True)
class Data:
    format: str = option("auto", "layout of the annotations, an entry of FORMATS. auto: the one that lies below "
                         "data.root", choices=("auto", "coco", "voc", "yolo", "visual_genome", "imagenet_det",
                                               "per_image_json", "shapes"),
        table="detector.data.formats:FORMATS")
    root: str = option("", "folder that holds images and annotations; or a COCO file or YOLO data file in it",
                       path=True)
    images: str = option("", "folder of the images, below data.root or absolute; empty: where the layout has them",
                         path=True)
    train: tuple[str, ...] = option(("train",), "split names, or annotation files below data.root", path=True)
    val: tuple[str, ...] = option(("val",), "the same, for evaluation; may be empty. A number between 0 and 1: this "
                                  "share of the training images, chosen by file names and seed", path=True)
    classes: tuple[str, ...] = option((), "class names in order; empty: those of the training annotations; "
                                          "[voc]: the 20 of PASCAL VOC")
    cache: str = option("~/.cache/fleet-rcnn", "folder of the index caches", path=True)
    invalid_boxes: str = option("clip", "boxes that reach outside their image, or have no area. clip: cut to the "
                                "image, and dropped where no area is left; drop: dropped; refuse: an error",
                                choices=("clip", "drop", "refuse"))
    duplicates: str = option("drop", "images listed twice and objects annotated twice, exactly equal. drop: the first "
                             "one counts; keep: all count; refuse: an error", choices=("drop", "keep", "refuse"))
    empty_images: str = option("keep", "training images without an object", choices=("keep", "drop"))
    unreadable_images: str = option("refuse", "images that cannot be decoded. refuse: an error; grey: a grey image "
                                    "without objects is used instead, and named in the log", choices=("refuse", "grey"))
    train_on_crowd: bool = option(False, "train on COCO's crowd regions (iscrowd)")
    train_on_difficult: bool = option(False, "train on VOC's difficult objects")


@dataclass(frozen=True)
class Batch:
    size: int = option(AUTO, "images of one optimizer step, over all processes; 0: micro_batch_size x processes. auto: "
                       "2 to 16, more for more training images", low=0, auto=True)
    micro_batch_size: int = option(2, "images in one forward pass of a process; the gradients of a larger batch are "
                                   "accumulated. auto: as many as fit into memory, by trial steps when a run starts",
                                   low=1, auto=True)
    aspect_ratio_groups: str = option(
        "shuffled", "shuffled: images of similar aspect ratio form a batch, drawn anew in each epoch; static: fixed "
        "chunks of the images sorted by ratio, of which the last, incomplete one is never trained on",
        choices=("shuffled", "static"))
    crop_to_group: bool = option(False, "cut and pad all images of a static chunk to one aspect ratio; the padding "
                                 "counts as image")
    pad_to: str = option("batch", "batch: pad to the largest image of the batch; group: pad to the largest image of "
                         "the aspect-ratio group, so that few tensor shapes occur (for run.compile), with more padding",
                         choices=("batch", "group"))
    repeat_threshold: float = option(0.0, "images of classes that are in a smaller fraction of the images than this "
                                     "are drawn more often (repeat-factor sampling; LVIS has 0.001); 0: all equally",
                                     low=0, high=1)


@dataclass(frozen=True)
class Augment:
    hflip_prob: float = option(0.5, "probability of a horizontal flip", low=0, high=1)
    vflip_prob: float = option(0.0, "probability of a vertical flip, for images without an upper side: boards, cells, "
                                    "photographs from the air", low=0, high=1)
    transpose_prob: float = option(0.0, "probability that rows and columns of a square image are swapped; with both "
                                        "flips it is seen from all four sides", low=0, high=1)
    min_size: tuple[int, ...] = option((AUTO,), "short side of the resized image, pixels; of several, one is drawn for "
                                       "each step. auto: 320 to 800, so that nine of ten objects have 48 pixels or "
                                       "more", auto=True)
    mirrored_copies: bool = option(False, "instead of random flips, an epoch holds every image twice, the second time "
                                   "flipped")
    max_boxes: int = option(0, "most objects of an image; of more, a random subset is used; 0: no limit", low=0)
    max_size: int = option(1333, "limit of the long side, pixels; 0: none", low=0)
    scale_jitter: tuple[float, ...] = option((1.0, 1.0), "range of the random scale: above 1 a crop is enlarged, below "
                                             "1 the image is shrunk and padded with grey")
    object_crop_prob: float = option(0.0, "probability that a crop of scale_jitter is placed around a random object "
                                     "rather than anywhere: for small objects in large images", low=0, high=1)
    reduced_jpegs: bool = option(False, "decode training JPEGs at 1/2, 1/4 or 1/8 of their size where that is still no "
                                 "smaller than the resized image; faster from 1/4 on, pixels differ slightly")
    color_jitter_prob: float = option(0.0, "probability of each of: brightness, contrast, saturation, hue", low=0,
                                      high=1)


@dataclass(frozen=True)
class Optim:
    optimizer: str = option("sgd", "an entry of OPTIMIZERS; sgd: SGD with momentum; adamw: AdamW, for backbones that "
                            "need it, such as Swin's", choices=("sgd", "adamw"),
                            table="detector.training.optimizer:OPTIMIZERS")
    lr: float = option(AUTO, "learning rate for reference_batch_size images a step; scaled linearly with batch.size. "
                       "auto: 0.02 for 16 images, with adamw 0.0001, and twice as much for batches of 4 or fewer",
                       low=0, auto=True)
    reference_batch_size: int = option(16, "the global batch that lr and schedule.warmup_steps are stated for", low=1)
    momentum: float = option(0.9, "of SGD", low=0, high=0.9999)
    weight_decay: float = option(1e-4, "weight decay", low=0)
    weight_decay_norm: float = option(-1.0, "weight decay of the weights and biases of norms; -1: weight_decay", low=-1)
    weight_decay_bias: float = option(-1.0, "weight decay of other biases; -1: weight_decay", low=-1)
    bias_lr_factor: float = option(1.0, "learning rate of biases, as a multiple of lr", low=0)
    backbone_lr_factor: float = option(1.0, "learning rate of the backbone below its feature pyramid, as a multiple of "
                                       "lr", low=0)
    grad_clip_norm: float = option(0.0, "largest norm of the whole gradient; 0: no clipping", low=0)
    bf16_allreduce: bool = option(False, "gradients are sent between processes as bf16: half the bytes, less precision")
    ema_decay: float = option(0.0, "decay of an exponential moving average of the weights, which is what is evaluated; "
                              "0: none", low=0, high=0.999999)


@dataclass(frozen=True)
class Schedule:
    epochs: float = option(AUTO, "passes over the training images. auto: 12, 15 below 1000 images, or as many as make "
                           "200 steps", low=0, auto=True)
    steps: int = option(0, "optimizer steps; 0: schedule.epochs decides", low=0)
    lr_schedule: str = option("milestones", "how the learning rate falls. milestones: times gamma at each of them; "
                              "cosine: to 0; periodic: times gamma at the start of each epoch e = 1, 2, ... that "
                              "schedule.period + 1 divides", choices=("milestones", "cosine", "periodic"))
    period: int = option(5, "periodic: epochs before the first drop (lr_decay of jwyang/faster-rcnn.pytorch)", low=1)
    milestones: tuple[float, ...] = option((AUTO,), "epochs at which the learning rate is multiplied by gamma. auto: "
                                           "after 2/3 and 11/12 of the run; 8 and 11 of 12 epochs", auto=True)
    gamma: float = option(0.1, "factor at a milestone", low=0, high=1)
    warmup_steps: int = option(1000, "steps of linear warm-up at reference_batch_size; a larger batch takes fewer. At "
                               "most a tenth of the run, and none after the learning rate has fallen", low=0)
    warmup_factor: float = option(0.001, "learning rate at step 0, as a fraction of the full one", low=0, high=1)
    early_stopping_patience: int = option(0, "stop after this many evaluations without a better evaluate.best_metric; "
                                          "0: never", low=0)


@dataclass(frozen=True)
class Evaluate:
    every_epochs: float = option(AUTO, "epochs between two evaluations; 0: only at the end. auto: about 6 in a run, "
                                 "at most one an epoch", low=0, auto=True)
    metric: str = option("coco", "coco: AP over IoU 0.50 to 0.95; voc: AP at IoU 0.5, 11 points and area; "
                         "visual_genome: AP at IoU 0.5, where a class without objects counts as 0",
                         choices=tuple(METRICS))
    best_metric: str = option("AP", "the metric, larger is better, that best.pt and early stopping follow")
    batch_size: int = option(2, "images in one forward pass of a process", low=1)
    min_size: int = option(AUTO, "short side of the resized image, pixels. auto: as in training", low=32, auto=True)
    max_size: int = option(1333, "limit of the long side, pixels; 0: none", low=0)
    score_thresh: float = option(0.05, "detections below this score are dropped", low=0, high=1)
    nms_thresh: float = option(0.5, "IoU above which NMS drops the lower-scored detection of a class", low=0, high=1)
    max_detections: int = option(100, "most detections of one image", low=1)
    tta: str = option("none", "test-time augmentation: detections of several views of an image are merged, by IoU of "
                      "nms_thresh; a score is the mean over the views. hflip: the image and its mirror image; flips: "
                      "also both upside down; symmetries: also with x and y exchanged, 8 views (D4)",
                      choices=("none", "hflip", "flips", "symmetries"))
    compute_loss: bool = option(True, "also compute the validation loss")


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
    seed: int = option(0, "seed of everything random", low=0)


def contradictions(config: Config) -> list[str]:
    """Returns a sentence for each combination of values that cannot work; single values are checked elsewhere."""
    problems = []
    sizes, jitter = config.augment.min_size, config.augment.scale_jitter
    if sizes != (AUTO,) and (not sizes or min(sizes) < 32):
        problems.append(f"augment.min_size={list(sizes)}: at least one, each 32 pixels or more")
    low, high = jitter if len(jitter) == 2 else (0, 0)
    if not 0.1 <= low <= high <= 4:
        problems.append(f"augment.scale_jitter={list(jitter)}: two numbers, 0.1 <= from <= to <= 4")
    if not config.data.train:
        problems.append("data.train=[]: at least one split is needed, such as data.train=train")
    if not config.data.root and config.data.format != "shapes":
        problems.append("data.root='': name the folder of the data set, for example data.root=/data/coco")
    if config.batch.size == 0 and config.batch.micro_batch_size == AUTO:
        problems.append("batch.size=0 with batch.micro_batch_size=auto: neither follows from the other; state one of "
                        "them, or set batch.size=auto")
    problems += [*model_contradictions(config.model), *input_contradictions(config)]
    if config.evaluate.best_metric not in METRICS[config.evaluate.metric]:
        problems.append(f"evaluate.best_metric={config.evaluate.best_metric}: evaluate.metric={config.evaluate.metric} "
                        "gives " + ", ".join(METRICS[config.evaluate.metric]))
    if config.schedule.epochs == 0 and config.schedule.steps == 0:
        problems.append("schedule.epochs=0: nothing to train; set schedule.epochs or schedule.steps")
    return problems


def input_contradictions(config: Config) -> list[str]:
    """Returns the contradictions among options of resizing, batching and augmentation."""
    problems, augment = [], config.augment
    for path, limit in (("augment.max_size", augment.max_size), ("evaluate.max_size", config.evaluate.max_size)):
        if 0 < limit < 32:
            problems.append(f"{path}={limit}: 32 pixels or more, or 0 for no limit")
    if augment.mirrored_copies and augment.hflip_prob:
        problems.append(f"augment.mirrored_copies with augment.hflip_prob={augment.hflip_prob:g}: copies would be "
                        "flipped back; set augment.hflip_prob=0")
    if config.batch.repeat_threshold and config.batch.aspect_ratio_groups == "static":
        problems.append(f"batch.repeat_threshold={config.batch.repeat_threshold:g} with "
                        "batch.aspect_ratio_groups=static: fixed chunks hold every image once; set "
                        "batch.aspect_ratio_groups=shuffled, or batch.repeat_threshold=0")
    if config.batch.crop_to_group:
        if config.batch.aspect_ratio_groups != "static":
            problems.append("batch.crop_to_group needs one aspect ratio for each batch; set "
                            "batch.aspect_ratio_groups=static")
        if len(augment.min_size) > 1 or set(augment.scale_jitter) != {1}:
            problems.append(f"batch.crop_to_group with augment.min_size={list(augment.min_size)} and "
                            f"augment.scale_jitter={list(augment.scale_jitter)}: the crop is computed for one "
                            "size; set one size and no jitter")
        if config.batch.pad_to == "group":
            problems.append("batch.crop_to_group with batch.pad_to=group: the images of a batch have one size already; "
                            "set batch.pad_to=batch")
        if augment.reduced_jpegs:
            problems.append("batch.crop_to_group with augment.reduced_jpegs=true: the crop is computed in pixels of "
                            "the whole image; set augment.reduced_jpegs=false")
    return problems
