"""The table of README.md: each question with its answer, made of the last lines of results/, and its command.

    python tests/benchmarks/answers.py              # prints the table
    python tests/benchmarks/answers.py --readme     # writes the table into tests/benchmarks/README.md, and its six most
                                                    # telling rows into the project's README.md

An answer is computed from result lines alone: a question without a line is `not measured`. Each kind of machine has a
row of its own.
"""

import argparse
import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

from measuring import PROJECT_README, README, RESULTS, format_spread, ratio, spread, write_between_markers

NOT_MEASURED, BF16 = "not measured", "run.precision=bf16"
Lines = list[dict]


@dataclass(frozen=True)
class Question:
    text: str
    command: str                          # without `python tests/benchmarks/`; its first word names the file of lines
    answer: Callable[[Lines], str]
    selects: Callable[[dict], bool] = bool  # True for the lines that answer it
    highlight: bool = False               # one of the rows of the project's README

    @property
    def benchmark(self) -> str:
        return self.command.split(".")[0]


def is_case(case: str, gpu: bool) -> Callable[[dict], bool]:
    """Selects the lines of a case that were measured on a GPU, or on a CPU."""
    return lambda line: line["case"] == case and bool(line["gpus"]) == gpu


def is_start(case: str) -> Callable[[dict], bool]:
    return lambda line: line["case"] == case


def is_single_image(case: str) -> Callable[[dict], bool]:
    return lambda line: line["case"] == case and line["batch"] == 1


def speedups(lines: Lines) -> str:
    """The speed of training steps or predictions relative to torchvision's, by variant, in the last line."""
    line = lines[-1]
    ratios = {name: values for name, values in line["ratio"].items()
              if not name.startswith("torchvision") and "heads" not in name}
    images_per_s = {name: line["batch"] / statistics.median(seconds) for name, seconds in line["seconds"].items()}
    return "; ".join(f"{name} {format_spread(values)} times, {images_per_s[name]:.3g} images/s"
                     for name, values in ratios.items())


def accuracy(lines: Lines) -> str:
    seeds = list({line["seed"]: line for line in lines if line["config"] == lines[-1]["config"]}.values())
    means = [f"{key} {statistics.mean(line['ours'][key] for line in seeds):.4f}, torchvision's "
             f"{statistics.mean(line['peer'][key] for line in seeds):.4f}" for key in ("AP", "AP50")]
    speedup = spread([line["ours"]["images_per_s"] / line["peer"]["images_per_s"] for line in seeds])
    return f"{'; '.join(means)} (means of {len(seeds)} seeds); {format_spread(speedup)} times as fast"


def overfit(lines: Lines) -> str:
    return f"AP50 {lines[-1]['AP50']:.3f} after {lines[-1]['step']} steps"


def few_images(lines: Lines) -> str:
    line = lines[-1]
    return f"AP50 {line['AP50']:.3f} on held-out images, {line['step']} steps in {line['minutes']:.1f} minutes"


def recipes(lines: Lines) -> str:
    seeds = list({line["seed"]: line for line in lines if line["overrides"] == lines[-1]["overrides"]}.values())
    names = {"modern": "default options", "original": "recipe/original"}
    return "; ".join(f"{names[name]} {format_spread(spread([line['AP50'][name] for line in seeds]), 3)}"
                     for name in seeds[0]["AP50"])


def start_weights(lines: Lines) -> str:
    """AP50 from ImageNet weights and from random ones; of each seed the last line with the steps and options of the last one."""
    last = lines[-1]
    seeds = list({line["seed"]: line for line in lines if line["overrides"] == last["overrides"]
                  and line["weights"]["step"] == last["weights"]["step"]}.values())
    weights, random = (spread([line[start]["AP50"] for line in seeds]) for start in ("weights", "random"))
    return (f"AP50 {format_spread(weights, 3)} from ImageNet weights, {format_spread(random, 3)} from random ones, after "
            f"{last['weights']['step']} steps ({len(seeds)} seed{'s' if len(seeds) > 1 else ''})")


def published_row(lines: Lines) -> str:
    """Mean and standard deviation over the seeds; of each seed the last line that was measured with the last one's files."""
    seeds = list({line["seed"]: line for line in lines if line["hardware"] == lines[-1]["hardware"]}.values())
    values = [line["metrics"]["AP50"] for line in seeds]
    deviation = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    count = "1 seed" if len(seeds) == 1 else f"means of {len(seeds)} seeds"
    return (f"AP50 {statistics.mean(values):.4f}{deviation}, AP {statistics.mean(line['metrics']['AP'] for line in seeds):.4f} ({count}); "
            f"{statistics.mean(line['minutes'] for line in seeds):.0f} minutes a seed, {lines[-1]['hardware']}")


def loader(lines: Lines) -> str:
    line = lines[-1]
    own, peer = (statistics.median(line["one_core"][name]) for name in ("ours", "torchvision"))
    return (f"{own:.0f} images/s of one core, {format_spread(line['ratio']['ours'])} times torchvision's {peer:.0f}; with 8 "
            f"workers steps of {line['step_ms']:.0f} ms wait {line['workers']['8']['ours']['wait']:.1%}")


def image_files(lines: Lines) -> str:
    line = lines[-1]
    total = {outcome: sum(counts.get(outcome, 0) for counts in line["counts"].values()) for outcome in ("pixels", "refused")}
    jpeg = line["images_per_s"]["jpg"]
    return (f"{total['pixels']} give pixels, {total['refused']} are refused by name, {len(line['bad'])} do anything else; clean JPEGs: "
            f"{statistics.median(jpeg['read_image']):.0f} images/s, {format_spread(ratio(jpeg['read_image'], jpeg['Pillow']))} times "
            "Pillow's")


def start_up(lines: Lines) -> str:
    index, peer, cache, first = (statistics.median(measured["seconds"] for measured in lines[-1][name])
                                 for name in ("ours", "pycocotools", "cache", "first"))
    return (f"index {index:.1f} s, pycocotools {peer:.1f} s; from the cache {cache:.2f} s; first batch {first:.1f} s; memory "
            f"grows by {lines[-1]['growth']:.1%} in {lines[-1]['steps']} steps")


def scoring(lines: Lines) -> str:
    own, peer = (statistics.median(lines[-1][name]["seconds"]) for name in ("ours", "pycocotools"))
    same = "the same bits" if lines[-1]["kept"]["same bits"] else "other bits"
    return f"{own:.2f} s and {lines[-1]['ours']['peak_mib']:.0f} MiB, pycocotools {peer:.1f} s; {same}"


def scoring_beside(lines: Lines) -> str:
    return f"{format_spread(ratio(lines[-1]['beside'], lines[-1]['alone']), 3)} times the pace"


def checkpoint(lines: Lines) -> str:
    own, peer = (statistics.median(lines[-1]["stops_s"][name]) for name in ("background", "torch.save"))
    return f"{own:.2f} s, with torch.save {peer:.2f} s ({lines[-1]['checkpoint_mib']:.0f} MiB)"


def bit_flips(lines: Lines) -> str:
    line = lines[-1]
    found = line["trials"] - len(line["passed_over"])
    return (f"{found} of {line['trials']} are found, and the one before is taken; verifying {line['checkpoint_mib']:.0f} MiB takes "
            f"{statistics.median(line['seconds']['verify']):.3f} s, {format_spread(line['ratio'])} of torch.load")


def disturbances(lines: Lines) -> str:
    return (f"{len(lines[-1]['disturbances'])} disturbances in {lines[-1]['steps']} steps: the bits of an undisturbed run, "
            "each step once")


def kills(lines: Lines) -> str:
    return f"{lines[-1]['trials']} kills in {lines[-1]['runs']} runs: the weights of an undisturbed run, each time"


def device_checks(lines: Lines) -> str:
    return "; ".join(f"{name}: {'yes' if result['good'] else 'no'}" for name, result in lines[-1]["checks"].items())


def annotations_fuzz(lines: Lines) -> str:
    line = lines[-1]
    total = {outcome: sum(count for name, count in line["outcomes"].items() if name.endswith(f": {outcome}"))
             for outcome in ("read", "refused")}
    return (f"{total['read']} are read, {total['refused']} are refused with one error that names what is wrong, "
            f"{len(line['failures'])} do anything else")


QUESTIONS = [
    Question("AP50 on the 500 test images of DeepPCB with ResNet-18 FPN, and how long does a training take?",
             "published_row.py deeppcb-resnet18-fpn data.root=/data/deeppcb", published_row,
             lambda line: line["row"] == "deeppcb-resnet18-fpn", highlight=True),
    Question("AP of this package and of torchvision's `FasterRCNN` with its reference loop, on BCCD, and the speed?",
             "against_torchvision.py configs/custom/bccd.yaml data.root=/data/bccd", accuracy,
             lambda line: BF16 not in line["overrides"]),
    Question("AP on BCCD, this package in bf16 and torchvision's `FasterRCNN` with its reference loop in fp32, and the speed?",
             f"against_torchvision.py configs/custom/bccd.yaml data.root=/data/bccd {BF16}", accuracy,
             lambda line: BF16 in line["overrides"], highlight=True),
    Question("Speed of a training step, relative to torchvision's loop: ResNet-18 FPN at 320, on a CPU?",
             "train_step.py --cases resnet18_fpn_320", speedups, is_case("resnet18_fpn_320", False)),
    Question("Speed of a training step, relative to torchvision's loop: ResNet-50 FPN at 800, on a CPU?",
             "train_step.py --cases resnet50_fpn_800", speedups,
             is_case("resnet50_fpn_800", False), highlight=True),
    Question("Speed of a training step, relative to torchvision's loop with AMP: ResNet-50 FPN at 800, on a GPU?",
             "train_step.py --cases resnet50_fpn_800",
             speedups, is_case("resnet50_fpn_800", True)),
    Question("Speed of a training step, relative to torchvision's loop with AMP: ResNet-101 C4 at 600, on a GPU?",
             "train_step.py --cases resnet101_c4_600", speedups,
             is_case("resnet101_c4_600", True)),
    Question("Speed of a training step, relative to torchvision's loop with AMP: VGG16 at 600, on a GPU?",
             "train_step.py --cases vgg16_600", speedups, is_case("vgg16_600", True)),
    Question("On a GPU: does mixed precision train, is a step deterministic, does the host never wait for the device?",
             "device_checks.py", device_checks, lambda line: bool(line["gpus"])),
    Question("Speed of predictions, relative to torchvision's detector, one image at a time: ResNet-18 FPN at 320?",
             "inference.py --cases resnet18_fpn_320", speedups, is_single_image("resnet18_fpn_320")),
    Question("Speed of predictions, relative to torchvision's detector: ResNet-50 FPN at 800?",
             "inference.py --cases resnet50_fpn_800", speedups,
             is_single_image("resnet50_fpn_800")),
    Question("Can a small COCO with all 80 classes be overfitted, AP50 above 0.8 on its training images?",
             "overfit.py configs/custom/coco_tiny.yaml data.root=/data/coco_tiny", overfit),
    Question("AP50 of 40 blood-cell images, 12 of them held out, with the default options and a ResNet-18 from ImageNet weights?",
             "few_images.py /data/bccd --weights resnet18.pth", few_images),
    Question("Do the default options and `base: recipe/original` reach the same AP50 on BCCD, within noise, at a short side of 192?",
             "recipes.py configs/custom/bccd.yaml data.root=/data/bccd augment.min_size=[192] augment.max_size=384 "
             "evaluate.min_size=192 evaluate.max_size=384 model.anchor_sizes=[[16],[32],[64],[128],[256]]", recipes),
    Question("AP50 on BCCD of VGG16 in the original recipe, at a short side of 320, from Oxford's weights and from random ones?",
             "start_weights.py --data /data --weights /weights --cases vgg16_bccd", start_weights, is_start("vgg16_bccd")),
    Question("AP50 on BCCD of ResNet-18 FPN, at a short side of 320, from ImageNet weights and from random ones?",
             "start_weights.py --data /data --weights /weights --cases resnet18_bccd", start_weights, is_start("resnet18_bccd")),
    Question("The same trained on 50 images of VOC 2012 and tested on 50 others?",
             "start_weights.py --data /data --weights /weights --cases resnet18_voc2012_100", start_weights,
             is_start("resnet18_voc2012_100")),
    Question("Images/s of the loader, relative to torchvision's, and how long does a step wait for its images?",
             "loader.py", loader),
    Question("What happens with 10,000 damaged image files of seven formats, and how fast are whole ones decoded?",
             "image_files.py", image_files),
    Question("What happens with 10,000 mutated annotation files, lists and configs of all formats?", "annotations_fuzz.py",
             annotations_fuzz),
    Question("How long do index, cache and first batch of COCO's train2017 take, and does the memory of workers grow?",
             "start_up.py", start_up),
    Question("How long does scoring at the size of COCO's val2017 take, relative to pycocotools?",
             "scoring.py", scoring,
             highlight=True),
    Question("Do training steps keep their pace while an evaluation is scored in the background?", "scoring_beside.py",
             scoring_beside),
    Question("Do live lines on a terminal and plots after each evaluation slow the steps?", "progress_cost.py",
             lambda lines: f"{format_spread(lines[-1]['ratio'], 3)} times the speed of the same run in a pipe without plots"),
    Question("How long does a step wait for a checkpoint?", "checkpoint.py", checkpoint, highlight=True),
    Question("Are 1,000 damaged checkpoints found, and what does it cost to verify one?", "bit_flips.py", bit_flips),
    Question("Does a run on Slurm survive preemption, its time limit, a requeue by hand and a lost node, each twice?",
             "disturbances.py", disturbances),
    Question("Does a job on Slurm survive fifty kills at random moments?", "kills.py", kills, highlight=True)]


def lines_by_machine(question: Question, results: Path) -> dict[str, Lines]:
    """Returns the result lines that answer a question, by kind of machine; the machine of the last line comes last."""
    path, by_machine = results / f"{question.benchmark}.jsonl", {}
    for line in map(json.loads, path.read_text().splitlines() if path.exists() else []):
        if question.selects(line):
            by_machine[machine(line)] = [*by_machine.pop(machine(line), []), line]
    return by_machine


def highlights(results: Path) -> str:
    """Returns the markdown table of the project's README: the last answer to each highlighted question."""
    rows = ["| | measured | on |", "|---|---|---|"]
    for question in QUESTIONS:
        if question.highlight:
            name, lines = (list(lines_by_machine(question, results).items()) or [("", [])])[-1]
            rows.append(f"| {question.text} | {question.answer(lines) if lines else NOT_MEASURED} | {name} |")
    return "\n".join(rows)


def table(results: Path) -> str:
    """Returns the markdown table: a row for each question and each kind of machine that answered it."""
    rows = ["| question | measured | on | command |", "|---|---|---|---|"]
    for question in QUESTIONS:
        for name, lines in lines_by_machine(question, results).items() or [("", [])]:
            answer = question.answer(lines) if lines else NOT_MEASURED
            rows.append(f"| {question.text} | {answer} | {name} | `python tests/benchmarks/{question.command}` |")
    return "\n".join(rows)


def machine(line: dict) -> str:
    """Returns the kind of machine that a line was measured on: its GPUs, or its cores and CPU."""
    if line["gpus"]:
        return f"{len(line['gpus'])} x {line['gpus'][0]}"
    return f"{line['cores']} cores ({line['cpu']})" if "cpu" in line else f"{line['cores']} cores"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--readme", action="store_true", help="write the table into tests/benchmarks/README.md")
    if parser.parse_args().readme:
        write_between_markers(README, "answers", table(RESULTS))
        write_between_markers(PROJECT_README, "answers", highlights(RESULTS))
    else:
        print(table(RESULTS))


if __name__ == "__main__":
    main()
