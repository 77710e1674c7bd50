"""The summary of gpu.sh, from made-up lines: correctness, goals, candidates for deletion, and what was not measured."""

import json
from pathlib import Path

import gpu_summary
import pytest

PEER, EAGER, OTHER_HEADS = "torchvision, AMP", "bf16", "bf16, torchvision's heads"
COMPILED, BOTH = "bf16, compiled", "bf16, torchvision's heads, compiled"


@pytest.fixture
def write(tmp_path):
    """Returns a function that appends lines of a benchmark, as of an H100 unless they state other `gpus`."""
    def append(name: str, *lines: dict) -> Path:
        with open(tmp_path / f"{name}.jsonl", "a") as file:
            file.writelines(json.dumps({"gpus": ["H100"], "case": "resnet50_fpn_800", "batch": 16, **line}) + "\n" for line in lines)
        return tmp_path
    return append


def step(**seconds: float) -> dict:
    names = {"peer": PEER, "eager": EAGER, "other_heads": OTHER_HEADS, "compiled": COMPILED, "both": BOTH}
    return {"seconds": {names[key]: [value, value, 2 * value] for key, value in seconds.items()}}


def test_without_a_line_of_a_gpu_nothing_is_measured(write, tmp_path):
    folder = write("train_step", {**step(peer=1, eager=0.1), "gpus": []}, {**step(peer=1, eager=0.1), "case": "vgg16_600"})
    rows = gpu_summary.summary(folder).splitlines()[1:]
    assert len(rows) == 11 and all(row.endswith(": not measured") for row in rows)
    assert all(row.endswith(": not measured") for row in gpu_summary.summary(tmp_path / "no folder").splitlines()[1:])


def test_goals_are_judged_by_the_fastest_variant_and_its_peer_of_the_same_line(write):
    folder = write("train_step", step(peer=0.25, eager=0.1, other_heads=0.104))
    text = gpu_summary.summary(folder)
    assert "ResNet-50 FPN at 800/1333, bf16, on H100" in text
    assert "goal: at least 180 images/s: 160 (bf16); NOT reached" in text
    assert "goal: at least 2.5 times torchvision's loop with its AMP: 2.50 (2.50 to 2.50) (bf16); reached" in text
    write("train_step", step(peer=0.16, eager=0.1, other_heads=0.12, compiled=0.08, both=0.1))
    text = gpu_summary.summary(folder)
    assert "goal: at least 180 images/s: 200 (bf16, compiled); reached" in text
    assert "with its AMP: 2.00 (2.00 to 2.00) (bf16, compiled); NOT reached" in text


def test_what_is_hardly_faster_than_its_counterpart_is_a_candidate_for_deletion(write):
    folder = write("train_step", step(peer=0.25, eager=0.1, other_heads=0.104))
    text = gpu_summary.summary(folder)
    assert "model.heads=native: 1.04 (1.04 to 1.04) times as fast as without; below 1.05: a candidate for deletion" in text
    assert "model.heads=native, compiled: not measured" in text and "run.compile: not measured" in text
    write("train_step", step(peer=0.25, eager=0.1, other_heads=0.12, compiled=0.08, both=0.12))
    text = gpu_summary.summary(folder)
    assert "model.heads=native: 1.20 (1.20 to 1.20) times as fast as without; worth it" in text
    assert "model.heads=native, compiled: 1.50 (1.50 to 1.50) times as fast as without; worth it" in text
    assert "run.compile: 1.25 (1.25 to 1.25) times as fast as without; worth it" in text
    assert "run.compile with model.heads=torchvision: 1.00 (1.00 to 1.00) times as fast as without; below 1.05" in text


def test_every_own_operation_is_judged_alone_by_its_last_line_of_the_case(write):
    nms, pooling, *others = gpu_summary.OPERATIONS
    folder = write("hot_path", operation(nms, 0.1, 0.2), operation(nms, 0.1, 0.13), operation(pooling, 0.1, 0.104),
                   {**operation(others[0], 0.1, 0.3), "case": "tiny"})
    rows = gpu_summary.summary(folder).splitlines()[-4:]
    assert rows == [f"{nms}: 1.30 (1.30 to 1.30) times as fast as without; worth it",
                    f"{pooling}: 1.04 (1.04 to 1.04) times as fast as without; below 1.05: a candidate for deletion",
                    *(f"{name}: not measured" for name in others)]


def operation(name: str, own: float, torchvision: float) -> dict:
    return {"operation": name, "seconds": {"own": [own, own, 2 * own], "torchvision": [torchvision, torchvision, 2 * torchvision]}}


@pytest.mark.parametrize("newest", [{"gpus": ["H200"]}, {"commit": "new"}])
def test_what_a_run_did_not_reach_is_not_taken_from_an_older_one(write, newest):
    """The newest line is of the first file; a line of another GPU or commit does not count."""
    older = {"time": 1.0, "commit": "old"}
    write("train_step", {**step(peer=0.25, eager=0.1, other_heads=0.12), **older})
    write("hot_path", {**operation(gpu_summary.OPERATIONS[0], 0.1, 0.2), **older})
    write("device_checks", {"checks": {"no wait": {"good": False, "about": "old"}}, **older})
    folder = write("device_checks", {"checks": {"no wait": {"good": True, "about": "none"}}, **older, "time": 2.0, **newest})
    first, check, *rows = gpu_summary.summary(folder).splitlines()
    assert first.endswith(f"on {newest.get('gpus', ['H100'])[0]}; commit {newest.get('commit', 'old')}") and check == "no wait: yes; none"
    assert len(rows) == 10 and all(row.endswith(": not measured") for row in rows)
    write("train_step", {**step(peer=0.25, eager=0.1), **older, "time": 3.0, **newest})
    assert "180 images/s: 160 (bf16); NOT reached" in gpu_summary.summary(folder)


def test_correctness_comes_first_also_where_not_all_checks_were_reached(write):
    folder = write("device_checks", {"checks": {"no wait": {"good": True, "about": "none"}}})
    assert gpu_summary.summary(folder).splitlines()[1] == "no wait: yes; none"
    write("device_checks", {"checks": {"no wait": {"good": True, "about": "none"}, "amp": {"good": False, "about": "fp32 1, bf16 9"}}})
    assert gpu_summary.summary(folder).splitlines()[1:3] == ["no wait: yes; none", "amp: NO; fp32 1, bf16 9"]


def test_every_compared_variant_is_one_of_the_benchmark_and_gpu_sh_measures_it():
    import hot_path
    import train_step
    text = (Path(gpu_summary.__file__).parent / "gpu.sh").read_text()
    for variant in {name for pair in gpu_summary.CANDIDATES.values() for name in pair}:
        assert variant in train_step.VARIANTS and (f'"{variant}"' in text or f"--variants {variant} " in text)
    assert gpu_summary.OPERATIONS == tuple(hot_path.OPERATIONS) and "hot_path=(--case resnet50_fpn_800)" in text
