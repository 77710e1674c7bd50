"""The arguments of predict, export and sync."""

import argparse

from detector.arguments.verb import Verb, add_checkpoint, add_path, add_run


def add_detector(parser: argparse.ArgumentParser) -> None:
    """Adds the positional argument RUN, which may be another detector, and --config."""
    add_run(parser, metavar="DETECTOR", help="a run, by its folder or its name; coco or coco:BUILDER, torchvision's "
            "COCO detectors, such as coco:fasterrcnn_resnet50_fpn_v2; or a file of weights, with --config")
    parser.add_argument("--config", default="", metavar="CONFIG", help="of a file of weights: a row of the tables, a "
                        "shipped config or a YAML file, such as coco/resnet50_fpn or voc07-res101-g1-b1; default: none")


def add_predict(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of predict."""
    add_detector(parser)
    parser.add_argument("source", metavar="SOURCE", help="an image, a folder, a video, or camera:0, which shows a "
                        "window where there is a display")
    parser.add_argument("--score", type=float, default=0.5, help="lowest score that is drawn and written, 0 to 1, such "
                        "as 0.3; default: 0.5")
    add_path(parser, "--out", "FOLDER", "folder for images, JSON and CSV, such as out, renewed by each call; default: "
             "predictions/SOURCE in the run folder, or in the current one where there is no run; another source of the "
             "same name gets SOURCE-2")
    add_checkpoint(parser)
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"), help="default: auto, which is a "
                        "GPU where there is one")
    parser.add_argument("--batch", type=int, default=4, metavar="N", help="images in one forward pass, such as 16; "
                        "default: 4")
    parser.add_argument("--report", action="store_true", help="also write report.html with the images")
    parser.add_argument("--frames", type=int, default=0, metavar="N", help="stop after N images or frames, such as 100;"
                        " default: 0, which is all")
    parser.add_argument("--slice", type=int, default=0, metavar="PIXELS", help="also search overlapping tiles of this "
                        "size, for small objects in large images, such as 640; default: 0, only the whole image")
    parser.add_argument("--overlap", type=float, default=None, metavar="FRACTION", help="of --slice: overlap of "
                        "neighboring tiles, 0 to 0.9, such as 0.3; default: 0.2")


def add_export(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of export."""
    add_detector(parser)
    parser.add_argument("--format", default="onnx", choices=("onnx", "pt2", "torchscript", "weights", "safetensors"),
                        help="onnx: ONNX; pt2: torch.export; torchscript: TorchScript; weights: a state dict of "
                        "torchvision's names; safetensors: the same without pickle; default: onnx")
    parser.add_argument("--padded-size", default="", metavar="HEIGHTxWIDTH", help="of onnx and pt2: size of the "
                        "network's input, such as 800x1333 for landscape images; default: a square that all fit in")
    add_path(parser, "--out", "FILE", "file to write, such as bccd.onnx; default: export/detector.* in the "
             "run folder, or in the current one where there is no run")
    add_checkpoint(parser)
    add_path(parser, "--images", "PATH", "image or folder on which file and model are compared, such as photos; "
             "default: the validation data")


def add_sync(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of sync."""
    add_run(parser)
    parser.add_argument("--to", required=True, choices=("mlflow", "wandb"), help="the tracker; no default. With "
                        "WANDB_MODE=offline W&B writes a folder in RUN/wandb")
    parser.add_argument("--url", default="", help="server, such as http://localhost:5000; default: MLFLOW_TRACKING_URI "
                        "or WANDB_BASE_URL (W&B: https://api.wandb.ai)")
    parser.add_argument("--project", default="", metavar="NAME", help="project of W&B, or experiment of MLflow, such "
                        "as cells; default: WANDB_PROJECT or MLFLOW_EXPERIMENT_NAME, else fleet-rcnn")


INFERENCE = {
    "predict": Verb("DETECTOR SOURCE", "draw the detections in an image, a folder, a video or camera:0",
                    ("predict coco photo.jpg", "predict bccd photo.jpg",
                     "predict runs/bccd photos/ --score 0.3 --report",
                     "predict bccd video.mp4 --out out", "predict bccd large.png --slice 640"), add_predict),
    "export": Verb("DETECTOR", "write a detector for other programs, and compare it with the model",
                   ("export bccd --format onnx", "export runs/bccd --format pt2 --padded-size 800x1333"), add_export),
    "sync": Verb("RUN --to mlflow|wandb", "send a run's numbers, options, plots and pictures to an experiment tracker",
                 ("sync bccd --to mlflow --url http://localhost:5000", "sync bccd --to wandb --project cells"),
                 add_sync, "Again, it sends what is new since."),
}
