"""fleet-rcnn VERB ...: checks what can be checked here, then starts the detector where it shall run."""

import argparse
import sys
from pathlib import Path

from detector.config.load import load_config
from detector.errors import BAD_INPUT, BadInput
from launcher.job import Job, Resources
from launcher.local import processes_here, run_here
from launcher.reproduce import reproduce

VERBS = {
    "train": "CONFIG [key=value ...]     train a config, or go on with its run",
    "check": "CONFIG [key=value ...]     say what is wrong with a config and its data, before anything runs",
    "evaluate": "RUN [key=value ...]     score a run's checkpoint on its validation data",
    "predict": "RUN SOURCE               draw what it finds in an image, a folder, a video or camera:0",
    "view": "CONFIG | anchors CONFIG     the data as the network will see it; anchors over it, and what they reach",
    "export": "RUN --format onnx|torchscript|weights     its detector for other programs",
    "data": "list | get NAME             the data sets of the tables: which there are, and how they come here",
    "reproduce": "ROW [--seeds 3] [key=value ...]     train and test a row of the published tables",
    "tables": "[--markdown|--html|--csv|--models]     the published tables, printed and measured",
    "options": "                         every option of a config, with default and reason",
}


def parser() -> argparse.ArgumentParser:
    verbs = "\n".join(f"  {verb:9} {about}" for verb, about in VERBS.items())
    top = argparse.ArgumentParser(
        prog="fleet-rcnn", formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
        usage="fleet-rcnn VERB ... [--processes N]",
        description=f"Trains Faster R-CNN detectors.\n\nverbs:\n{verbs}\n\n"
        "fleet-rcnn VERB --help tells more of one verb. A config is a YAML file or the name of one that ships\n"
        "with the package, such as custom/bccd. Exit status: 0 done, 2 bad input, 75 stopped early (start\n"
        "again to go on).")
    top.add_argument("verb", choices=VERBS, metavar="VERB", help="what to do")
    top.add_argument("--processes", type=int, default=0, metavar="N",
                     help="processes on this machine; default: one for each GPU, or one on the CPU")
    return top


def main(arguments: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["reproduce"]:
        return reproduce(arguments[1:], main)
    if len(arguments) > 1 and arguments[0] in VERBS and {"-h", "--help"} & set(arguments):
        return run_here(Job(arguments[0], ("--help",), Resources(1)))
    said, rest = parser().parse_known_args(arguments)
    try:
        return run_here(Job(said.verb, tuple(rest), resources(said.verb, rest, said.processes)))
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT


def resources(verb: str, rest: list[str], processes: int) -> Resources:
    """What the verb runs on. Mistakes in a config are told here, once, before anything starts."""
    if processes < 0:
        raise BadInput(f"--processes {processes}: 1 or more, or 0 for what the machine has")
    if processes > 1 and verb not in ("train", "evaluate"):
        raise BadInput(f"--processes {processes}: {verb} runs in one process")
    words = [word for word in rest if not word.startswith("-")]
    overrides = [word for word in words[1:] if "=" in word]
    if not words or verb not in ("train", "check", "evaluate"):
        return Resources()
    if "--time" in rest:
        return Resources(1)
    if verb == "evaluate":
        config = load_config(str(Path(words[0]) / "config.yaml"), overrides) if Path(words[0]).is_dir() else None
        return Resources(processes_here(processes, config.run.device, most=0)) if config else Resources()
    config = load_config(words[0], words[1:])
    return Resources(processes_here(processes, config.run.device, config.batch.size) if verb == "train" else 1)


if __name__ == "__main__":
    sys.exit(main())
