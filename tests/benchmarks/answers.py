"""What the benchmarks found, as README.md tells it: the last JSON lines of results/, beside question and command.

    python tests/benchmarks/answers.py              # prints the table
    python tests/benchmarks/answers.py --readme     # puts it into README.md

An answer is made of lines alone, so what no benchmark has appended is `not measured`; each kind of machine has its own.
"""

import argparse
import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

from measuring import README, RESULTS, into_readme, ratio, spread, told

NONE, BF16 = "not measured", "run.precision=bf16"
Lines = list[dict]


@dataclass(frozen=True)
class Question:
    text: str
    command: str                             # without `python tests/benchmarks/`; its first word names the file of lines
    answer: Callable[[Lines], str]
    requested: Callable[[dict], bool] = bool     # the lines that it is answered by

    @property
    def name(self) -> str:
        return self.command.split(".")[0]


def step(case: str, gpu: bool) -> Callable[[dict], bool]:
    return lambda line: line["case"] == case and bool(line["gpus"]) == gpu


def times(lines: Lines) -> str:
    """Ratios of a training step or a prediction to torchvision's, side by side, of the last line."""
    sides = {side: found for side, found in lines[-1]["ratio"].items() if not side.startswith("torchvision") and "heads" not in side}
    paces = {side: lines[-1]["batch"] / statistics.median(seconds) for side, seconds in lines[-1]["seconds"].items()}
    return "; ".join(f"{side} {told(found)} times, {paces[side]:.3g} images/s" for side, found in sides.items())


def accuracy(lines: Lines) -> str:
    last = list({line["seed"]: line for line in lines if line["config"] == lines[-1]["config"]}.values())
    means = [f"{key} {statistics.mean(line['ours'][key] for line in last):.4f}, torchvision's "
             f"{statistics.mean(line['peer'][key] for line in last):.4f}" for key in ("AP", "AP50")]
    pace = spread([line["ours"]["images_per_s"] / line["peer"]["images_per_s"] for line in last])
    return f"{'; '.join(means)} (means of {len(last)} seeds); {told(pace)} times as fast"


def overfit(lines: Lines) -> str:
    return f"AP50 {lines[-1]['AP50']:.3f} after {lines[-1]['step']} steps"


def recipes(lines: Lines) -> str:
    last = list({line["seed"]: line for line in lines if line["overrides"] == lines[-1]["overrides"]}.values())
    return "; ".join(f"{name} {told(spread([line['AP50'][name] for line in last]), 3)}" for name in last[0]["AP50"])


def loader(lines: Lines) -> str:
    one_core, workers = lines[-1]["one_core"], lines[-1]["workers"]["8"]["ours"]
    ours, theirs = (statistics.median(one_core[name]) for name in ("ours", "torchvision"))
    return (f"{ours:.0f} images/s of one core, {told(lines[-1]['ratio']['ours'])} times torchvision's {theirs:.0f}; with 8 workers "
            f"steps of {lines[-1]['step_ms']:.0f} ms wait {workers['wait']:.1%}")


def start_up(lines: Lines) -> str:
    index, peers, cache, first = (statistics.median(one["seconds"] for one in lines[-1][name])
                                  for name in ("ours", "pycocotools", "cache", "first"))
    return (f"index {index:.1f} s, pycocotools {peers:.1f} s; from the cache {cache:.2f} s; first batch {first:.1f} s; memory grows by "
            f"{lines[-1]['growth']:.1%} in {lines[-1]['steps']} steps")


def scoring(lines: Lines) -> str:
    ours, peers = (statistics.median(lines[-1][name]["seconds"]) for name in ("ours", "pycocotools"))
    same = "the same bits" if lines[-1]["kept"]["same bits"] else "other bits"
    return f"{ours:.2f} s and {lines[-1]['ours']['peak_mib']:.0f} MiB, pycocotools {peers:.1f} s; {same}"


def scoring_beside(lines: Lines) -> str:
    return f"{told(ratio(lines[-1]['beside'], lines[-1]['alone']), 3)} times the pace"


def checkpoint(lines: Lines) -> str:
    ours, theirs = (statistics.median(lines[-1]["stops_s"][name]) for name in ("background", "torch.save"))
    return f"{ours:.2f} s, with torch.save {theirs:.2f} s ({lines[-1]['checkpoint_mib']:.0f} MiB)"


def disturbances(lines: Lines) -> str:
    return f"{len(lines[-1]['disturbances'])} disturbances in {lines[-1]['steps']} steps: the bits of a run left alone, each step once"


def kills(lines: Lines) -> str:
    return f"{lines[-1]['trials']} kills in {lines[-1]['runs']} runs: the weights of a run left alone, each time"


def device_checks(lines: Lines) -> str:
    return "; ".join(f"{name}: {'yes' if found['good'] else 'no'}" for name, found in lines[-1]["checks"].items())


QUESTIONS = [
    Question("is it as accurate as torchvision's own `FasterRCNN` and loop on BCCD, and not slower?",
             "against_torchvision.py configs/custom/bccd.yaml data.root=/data/bccd", accuracy, lambda line: BF16 not in line["overrides"]),
    Question("and in bf16, beside torchvision's in fp32?",
             f"against_torchvision.py configs/custom/bccd.yaml data.root=/data/bccd {BF16}", accuracy,
             lambda line: BF16 in line["overrides"]),
    Question("how fast is a training step beside torchvision's loop, turn by turn: ResNet-18 FPN at 320, on a CPU?",
             "train_step.py --cases resnet18_fpn_320", times, step("resnet18_fpn_320", False)),
    Question("ResNet-50 FPN at 800, on a CPU?", "train_step.py --cases resnet50_fpn_800", times, step("resnet50_fpn_800", False)),
    Question("ResNet-50 FPN at 800, on a GPU, beside torchvision's AMP?", "train_step.py --cases resnet50_fpn_800", times,
             step("resnet50_fpn_800", True)),
    Question("ResNet-101 C4 at 600, on a GPU?", "train_step.py --cases resnet101_c4_600", times, step("resnet101_c4_600", True)),
    Question("VGG16 at 600, on a GPU?", "train_step.py --cases vgg16_600", times, step("vgg16_600", True)),
    Question("does mixed precision train, is a step the same twice, does it wait for nothing, on a GPU?", "device_checks.py",
             device_checks, lambda line: bool(line["gpus"])),
    Question("how fast are predictions beside torchvision's detector, ResNet-18 FPN at 320, one image at a time?",
             "inference.py --cases resnet18_fpn_320", times, lambda line: line["case"] == "resnet18_fpn_320" and line["batch"] == 1),
    Question("ResNet-50 FPN at 800?", "inference.py --cases resnet50_fpn_800", times,
             lambda line: line["case"] == "resnet50_fpn_800" and line["batch"] == 1),
    Question("does it learn all 80 classes of a small COCO by heart, AP50 above 0.8?",
             "overfit.py configs/custom/coco_tiny.yaml data.root=/data/coco_tiny", overfit),
    Question("do `recipe: original` and `modern` reach the same AP50 on BCCD, within noise, at a short side of 192?",
             "recipes.py configs/custom/bccd.yaml data.root=/data/bccd augment.min_size=[192] augment.max_size=384 "
             "evaluate.min_size=192 evaluate.max_size=384 model.anchor_sizes=[[16],[32],[64],[128],[256]]", recipes),
    Question("how many images does the loader feed, beside torchvision's, and how long does a step wait for them?", "loader.py", loader),
    Question("how long do index, cache and first batch of COCO's train2017 take, and do workers keep their memory?",
             "start_up.py", start_up),
    Question("how long does scoring at the size of COCO's val2017 take, beside pycocotools?", "scoring.py", scoring),
    Question("do the steps keep their pace while an evaluation is scored beside them?", "scoring_beside.py", scoring_beside),
    Question("how long does a step stop for a checkpoint?", "checkpoint.py", checkpoint),
    Question("does one run on Slurm live through preemption, its time limit, a requeue by hand and a lost node, each twice?",
             "disturbances.py", disturbances),
    Question("does a job on Slurm survive fifty kills at random moments?", "kills.py", kills)]


def table(results: Path) -> str:
    """Markdown: a row for each question, and for each kind of machine that answered it."""
    rows = ["| question | measured | on | command |", "|---|---|---|---|"]
    for question in QUESTIONS:
        path, found = results / f"{question.name}.jsonl", {}
        for line in map(json.loads, path.read_text().splitlines() if path.exists() else []):
            if question.requested(line):
                found.setdefault(machine(line), []).append(line)
        for place, lines in found.items() or [("", [])]:
            answer = question.answer(lines) if lines else NONE
            rows.append(f"| {question.text} | {answer} | {place} | `python tests/benchmarks/{question.command}` |")
    return "\n".join(rows)


def machine(line: dict) -> str:
    if line["gpus"]:
        return f"{len(line['gpus'])} x {line['gpus'][0]}"
    return f"{line['cores']} cores" + (f" ({line['cpu']})" if "cpu" in line else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--readme", action="store_true", help="put the table into README.md")
    if parser.parse_args().readme:
        into_readme(README, "answers", table(RESULTS))
    else:
        print(table(RESULTS))


if __name__ == "__main__":
    main()
