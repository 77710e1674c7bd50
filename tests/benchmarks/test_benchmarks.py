"""Every benchmark runs at a small size and appends its result line; the limits of the full size hold there, too."""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import answers
import measuring
import published_row
import pytest
import scaling
import torch
import tuning
from PIL import Image

from detector.config.load import load_config, to_yaml
from detector.run.usage import Start

FOLDER = Path(__file__).parent


def run(out: Path, name: str, *args: str, status: int | None = 0) -> tuple[str, list[dict]]:
    """Returns the output of a benchmark, and its JSON lines."""
    done = subprocess.run([sys.executable, str(FOLDER / name), *args, "--out", str(out)], capture_output=True, text=True,
                          timeout=300, env={**os.environ, "PYTHONPATH": str(FOLDER.parent.parent)})
    assert status in (None, done.returncode), done.stdout + done.stderr
    return done.stdout, [json.loads(line) for line in out.read_text().splitlines()]


def test_a_ratio_is_taken_round_by_round():
    assert measuring.ratio([2.0, 9.0, 4.0], [1.0, 3.0, 4.0]) == {"median": 2.0, "from": 1.0, "to": 3.0}
    assert measuring.format_spread({"median": 2.0, "from": 1.0, "to": 3.0}, 1) == "2.0 (1.0 to 3.0)"


def test_every_round_runs_every_variant_in_an_order_that_rotates():
    order = []
    seconds = measuring.run_interleaved({name: lambda name=name: order.append(name) for name in "abc"}, 4)
    assert "".join(order) == "abc" "bca" "cab" "abc" and [len(times) for times in seconds.values()] == [4, 4, 4]


def test_drawn_jpegs_have_the_bytes_per_pixel_of_coco_and_are_reproducible(tmp_path):
    first, = measuring.draw_jpegs(tmp_path / "a", 1, 480, 640)
    assert Image.open(first).size == (640, 480) and 0.3 < first.stat().st_size / (480 * 640) < 0.7
    assert first.read_bytes() == measuring.draw_jpegs(tmp_path / "b", 1, 480, 640)[0].read_bytes()


def test_start_up(tmp_path):
    """Compares the lower CPU time of two rounds: other work on the machine may slow one of the two alone."""
    _, (line,) = run(tmp_path / "out.jsonl", "start_up.py", "--images", "20000", "--boxes", "145000", "--rounds", "2",
                     "--steps", "50", status=None)
    own_s, peer_s = (min(result["cpu_s"] for result in line[name]) for name in ("ours", "pycocotools"))
    assert own_s < peer_s and line["ours"][0]["boxes"] == 145000
    assert line["kept"]["cache below 1 s"] and line["first"][0]["images"] == 2
    assert line["kept"]["memory grows less than 5%"] and len(line["memory"]["mib"]) == 50


def test_progress_cost(tmp_path):
    from conftest import TINY
    tiny = [option for option in TINY if not option.startswith(("run.log", "run.plots", "schedule.", "evaluate.every"))]
    output, (line,) = run(tmp_path / "out.jsonl", "progress_cost.py", "--rounds", "1", *tiny, "schedule.steps=12", "data.cache=",
                          status=None)
    assert len(line["images_per_s"]["shown"]) == 1 and line["ratio"]["median"] > 0 and "times the speed of those without" in output


def test_loader(tmp_path):
    output, (line,) = run(tmp_path / "out.jsonl", "loader.py", "--images", "8", "--rounds", "3", "--batch", "4", "--steps", "8",
                        "--workers", "2", "--step-ms", "1", "--short", "200")
    assert set(line["one_core"]) == {"torchvision", "ours", "ours at 1/2"} and line["ratio"]["torchvision"]["median"] == 1
    assert line["ratio"]["ours"]["median"] > 0 and 0 <= line["workers"]["2"]["ours"]["wait"] <= 1
    assert line["workers"]["2"]["ours"]["wait"] <= 0.02 or "the limit here is" in output


def test_image_files(tmp_path):
    """Damaged files of all formats: no signal, no traceback, no hang, and nothing printed."""
    output, (line,) = run(tmp_path / "out.jsonl", "image_files.py", "--files", "420", "--images", "2", "--rounds", "1", "--seed", "1")
    assert line["bad"] == [] and line["printed_bytes"] == 0 and "0 bad outcomes" in output
    assert all(set(counts) == {"pixels", "refused"} and sum(counts.values()) == 60 for counts in line["counts"].values())
    assert {"read_image", "Pillow"} <= set(line["images_per_s"]["jpg"]) and answers.image_files([line])


def test_scaling(tmp_path):
    from conftest import TINY
    tiny = [option for option in TINY if not option.startswith(("batch.size", "run.device", "run.num_workers", "run.log", "model.weights"))]
    output, (line,) = run(tmp_path / "out.jsonl", "scaling.py", "--rounds", "1", "--steps", "8", "--ranks", "3", "50", "--images",
                        "2000", "--val-images", "100", "--detections", "1000", "--size", *tiny)
    assert min(line["weak"]["1"] + line["weak"]["2"]) > 0 and [work["ranks"] for work in line["cost"]] == [3, 50]
    assert line["estimate"] == {"8": 0, "64": 0, "512": 0} and "| 64 | not measured |" in output
    assert scaling.tables(line) in output


@pytest.mark.parametrize("gpus, step_s, gradient, images_per_s", [
    (1, 0.1, 1e12, 160),                       # nothing to reduce
    (8, 0.1, 0, 8 * 160), (8, 0.1, 1e9, 8 * 160),          # 2 * 7/8 * 1e9 / 450e9 = 4 ms beside 67 ms
    (8, 0.3, 180e9, 8 * 16 / (0.3 + 0.7 - 0.2)),           # 0.7 s beside 0.2 s
    (64, 0.3, 80e9, 64 * 16 / (0.3 + 2 * 63 / 64 * 80 / 50 - 0.2))])  # between nodes
def test_the_estimate_is_its_formula(gpus, step_s, gradient, images_per_s):
    assert scaling.estimate(step_s, 16, gradient, gpus) == pytest.approx(images_per_s)


def test_the_estimate_uses_the_last_step_that_was_measured_on_a_gpu(tmp_path):
    lines = [{"gpus": gpus, "case": case, "batch": 16, "seconds": seconds} for gpus, case, seconds in (
        (["H200"], "resnet50_fpn_800", {"bf16": [9, 9, 9]}), (["H200"], "resnet50_fpn_800", {"bf16": [0.1, 0.3, 0.2]}),
        (["H200"], "vgg16_600", {"bf16": [5]}), ([], "resnet50_fpn_800", {"bf16": [7]}), (["H200"], "resnet50_fpn_800", {}))]
    (tmp_path / "steps.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert scaling.measured_step(tmp_path / "steps.jsonl") == (0.2, 16)
    assert scaling.measured_step(tmp_path / "none.jsonl") == (0, 0)


def test_the_readme_has_the_tables_of_the_last_lines():
    line = json.loads((measuring.RESULTS / "scaling.jsonl").read_text().splitlines()[-1])
    assert scaling.tables(line) in measuring.README.read_text()
    assert answers.table(measuring.RESULTS) in measuring.README.read_text()
    assert answers.highlights(measuring.RESULTS) in measuring.PROJECT_README.read_text()


def test_options_of_old_lines_have_their_names_of_today():
    line = json.loads((measuring.RESULTS / "scaling.jsonl").read_text().splitlines()[0])
    line["size"] = ["model.body=resnet18_fpn", "augment.short_sides=[320]", "run.precision=bf16"]
    assert "`model.backbone=resnet18_fpn augment.min_size=[320] run.precision=bf16`" in scaling.tables(line)


def test_the_text_between_the_markers_is_replaced(tmp_path):
    readme = tmp_path / "README.md"
    begin, end = "<!-- answers: python tests/benchmarks/answers.py --readme writes this -->", "<!-- answers: end -->"
    readme.write_text(f"before\n\n{begin}\n\nold\n\n{end}\n\nafter\n")
    measuring.write_between_markers(readme, "answers", "new")
    assert readme.read_text() == f"before\n\n{begin}\n\nnew\n\n{end}\n\nafter\n"


def test_a_question_without_a_line_is_not_measured(tmp_path):
    assert answers.table(tmp_path).count(f"| {answers.NOT_MEASURED} |") == len(answers.QUESTIONS)
    line = {"case": "vgg16_600", "batch": 16, "gpus": ["H"], "ratio": {"torchvision, AMP": {}, "bf16": measuring.spread([2, 3, 4])},
            "seconds": {"bf16": [0.1, 0.2, 0.4]}}
    other = {**line, "gpus": ["A"], "seconds": {"bf16": [0.4]}}
    (tmp_path / "train_step.jsonl").write_text("\n".join(map(json.dumps, ({**line, "seconds": {"bf16": [9]}}, other, line))))
    first, second = [row for row in answers.table(tmp_path).splitlines() if "VGG16 at 600" in row]
    assert "| bf16 3.00 (2.00 to 4.00) times, 40 images/s | 1 x A |" in first
    assert "| bf16 3.00 (2.00 to 4.00) times, 80 images/s | 1 x H |" in second  # the machine of the last line is last


def test_a_machine_is_described_by_its_gpus_or_by_cores_and_cpu():
    assert answers.machine({"gpus": ["H", "H"], "cores": 16, "cpu": "a CPU"}) == "2 x H"
    assert answers.machine({"gpus": [], "cores": 2, "cpu": "a CPU, AVX2"}) == "2 cores (a CPU, AVX2)"
    assert answers.machine({"gpus": [], "cores": 2}) == "2 cores"


def test_inference(tmp_path):
    _, lines = run(tmp_path / "out.jsonl", "inference.py", "--cases", "tiny", "--batches", "1", "2", "--rounds", "2")
    assert [line["batch"] for line in lines] == [1, 2]
    for line in lines:
        assert line["ratio"]["torchvision"]["median"] == 1 and line["ratio"]["fp32"]["from"] > 0 and line["same"] > 0.9


def test_checkpoint(tmp_path):
    from conftest import TINY
    output, (line,) = run(tmp_path / "out.jsonl", "checkpoint.py", "--saves", "2", "--every", "2", "data.format=shapes", "data.val=[]",
                        f"data.root={tmp_path / 'shapes'}", *TINY)
    assert line["time_ratio"]["none"] == {"median": 1, "from": 1, "to": 1} and line["stop_ratio"]["background"]["from"] > 0
    assert len(line["stops_s"]["background"]) == len(line["stops_s"]["here"]) == 2 and "torch.save" in output


def test_bit_flips(tmp_path):
    output, (line,) = run(tmp_path / "out.jsonl", "bit_flips.py", "--trials", "50", "--rounds", "1", "--backbone", "resnet18_fpn")
    assert sum(line["counts"].values()) == 50 and line["passed_over"] == [] and "0 were passed over" in output
    assert line["ratio"]["median"] > 0 and line["counts"]["flipped bit"] > 20


def test_the_gpu_script_runs_with_nothing_but_torch_and_torchvision(tmp_path):
    """Runs on a CPU, as small as possible, with packages that cannot be imported."""
    for name in ("pycocotools", "hotcoco", "submitit", "tensorboard", "pytest", "cv2", "onnx", "simplejpeg", "xxhash"):
        (tmp_path / "missing" / name).mkdir(parents=True)
        (tmp_path / "missing" / name / "__init__.py").write_text("raise ImportError")
    subprocess.run(["bash", "-n", str(FOLDER / "gpu.sh")], check=True)
    done = subprocess.run([str(FOLDER / "gpu.sh"), "--tiny", str(tmp_path / "out")], capture_output=True, text=True, timeout=540,
                          env={**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(tmp_path / "missing")})
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no tensorboard" in done.stdout and "failed" not in done.stdout
    assert "goal: at least 180 images/s: not measured" in (tmp_path / "out" / "summary.txt").read_text() in done.stdout
    for name in ("device_checks", "train_step", "train_step_parts", "hot_path", "loader", "inference", "scaling"):
        lines = (tmp_path / "out" / f"{name}.jsonl").read_text().splitlines()
        assert lines and json.loads(lines[-1])["benchmark"] == name


def test_the_gpu_script_requires_a_gpu_and_its_parts_have_time_limits(tmp_path):
    text = (FOLDER / "gpu.sh").read_text()
    limits = [int(line.split()[1]) for line in map(str.strip, text.splitlines()) if line.startswith("part ")]
    assert len(limits) == 9 and sum(limits) <= 450  # start-up and the steps between the parts take some seconds, too
    if not torch.cuda.is_available():
        done = subprocess.run([str(FOLDER / "gpu.sh"), str(tmp_path)], capture_output=True, text=True,
                              env={**os.environ, "PYTHON": sys.executable})
        assert done.returncode == 1 and "no GPU" in done.stdout and not list(tmp_path.iterdir())


def test_start_weights(tmp_path):
    from conftest import TINY
    from torchvision.models import resnet18
    of_start = ("model.weights", "model.norm", "model.frozen_stages", "schedule.", "evaluate.every_epochs")
    root = tmp_path / "bccd"
    for folder in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (root / folder).mkdir(parents=True)
    for number, split in enumerate(("train", "val")):
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text(f"{number}\n")
        Image.new("RGB", (64, 64), (90 * number, 30, 30)).save(root / "JPEGImages" / f"{number}.jpg")
        (root / "Annotations" / f"{number}.xml").write_text(
            f"<annotation><filename>{number}.jpg</filename><size><width>64</width><height>64</height></size><object><name>RBC</name>"
            "<bndbox><xmin>9</xmin><ymin>9</ymin><xmax>40</xmax><ymax>40</ymax></bndbox></object></annotation>")
    torch.save(resnet18().state_dict(), tmp_path / "resnet18_imagenet_to_layer3.pth")
    _, lines = run(tmp_path / "out.jsonl", "start_weights.py", "schedule.steps=2", f"data.cache={tmp_path / 'cache'}",
                   *(option for option in TINY if not option.startswith(of_start)), "--data", str(tmp_path), "--weights",
                   str(tmp_path), "--cases", "resnet18_bccd", "--seeds", "4", status=None)  # 1: neither start is better
    line, = lines
    assert (line["case"], line["seed"], line["weights"]["step"], line["random"]["step"]) == ("resnet18_bccd", 4, 2, 2)
    assert "after 2 steps (1 seed)" in answers.start_weights(lines)


def test_tuning_holds_out_whole_boards_and_shows_the_last_line_of_each_try(tmp_path):
    names = ["13000001.jpg", "00041001.jpg", "92000000.jpg", "00041002.jpg"]
    (tmp_path / "root" / "annotations").mkdir(parents=True)
    (tmp_path / "root" / "annotations" / "instances_train.json").write_text(json.dumps({
        "images": [{"id": number, "file_name": name} for number, name in enumerate(names)], "categories": [],
        "annotations": [{"id": number, "image_id": number} for number in range(4)]}))
    tuning.write_split(tmp_path / "root", tmp_path / "folder", tuning.HELD_OUT)
    fit, held = (json.loads((tmp_path / "folder" / "annotations" / f"instances_{split}.json").read_text()) for split in ("fit", "held"))
    assert [image["id"] for image in fit["images"]] == [1, 3] == [entry["image_id"] for entry in fit["annotations"]]
    assert [image["id"] for image in held["images"]] == [0, 2] == [entry["image_id"] for entry in held["annotations"]]
    lines = [{"try": "first", "AP50": ap, "AP": 0.5, "classes": {"open": 0.8, "short": 0.7}} for ap in (0.1, 0.75)]
    assert "| 0.750 | 0.500 | short 0.700 |" in tuning.table(lines) and "0.100" not in tuning.table(lines)
    assert tuning.table([]).count("not measured") == len(tuning.TRIES | tuning.EVALUATIONS)
    assert tuning.table(tuning.read_lines()) in tuning.CONFIGS_README.read_text()


def test_a_published_row_counts_only_finished_runs_of_all_seeds(tmp_path):
    """Runs as training leaves them, of a row with 1,875 steps; the third has not been evaluated after its last step."""
    row = "deeppcb-resnet18-fpn"
    for seed, name in enumerate((row, f"{row}-seed1", f"{row}-seed2")):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.yaml").write_text(to_yaml(load_config(f"tables/{row}", [f"run.name={name}", f"seed={seed}"])))
        (folder / "environment.json").write_text(json.dumps({"processes": 1, "gpus": [], "cores": 2, "commit": "0123"}))
        steps = 1875 if seed < 2 else 1000
        metrics = [{"kind": "train", "step": steps, "epoch": steps / 125, "images_per_s": 10, "memory_gib": 2},
                   {"kind": "evaluation", "step": steps, "AP50": 0.9 + seed / 100}]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metrics))
        (folder / "results.json").write_text(json.dumps({"step": steps, "metrics": {"AP50": 0.9 + seed / 100, "AP": 0.7, "loss": 1}}))
        start = Start(0, 1500, 1, 0, "cpu", 2, 8, 0, steps, {"steps": 1500.0}, ended=True)
        (folder / "usage.json").write_text(json.dumps({"starts": [asdict(start)]}))
    first, second = published_row.collect(row, [0, 1], tmp_path)
    assert (first["seed"], second["seed"], second["minutes"], second["metrics"]) == (0, 1, 25.0, {"AP50": 0.91, "AP": 0.7})
    assert answers.published_row([first, {**first, "seed": 1, "metrics": {"AP50": 0.8, "AP": 0.6}}, second]).startswith(
        "AP50 0.9050 ± 0.0071, AP 0.7000 (means of 2 seeds); 25 minutes a seed, 1 process on 2 CPU cores")
    with pytest.raises(SystemExit, match=r"does not hold finished runs of the seeds \[1, 2\]"):
        published_row.collect(row, [1, 2], tmp_path)
