"""The lines at the start of a log: table of ranks, warnings about cores and precision, name of the processor."""

import platform

import pytest
import torch

from detector.run import environment
from detector.run.environment import (
    RankInfo,
    fast_precision,
    processor,
    versions,
    warn_few_cores,
    warn_slow_precision,
    world_table,
)


def test_the_world_is_a_line_for_each_host():
    ranks = [RankInfo(rank, f"n{rank // 2}", "NVIDIA H100", tuple(range(8 * (rank % 2), 8 * (rank % 2) + 8)))
             for rank in range(4)]
    assert world_table(ranks) == ["rank  host  device           cores", "0-1   n0    2 x NVIDIA H100  16",
                                  "2-3   n1    2 x NVIDIA H100  16"]
    assert world_table([RankInfo(0, "here", "cpu", (0, 1))]) == ["rank  host  device  cores", "0     here  cpu     2"]


@pytest.mark.parametrize("cores, workers, text", [
    ([(0, 1), (0, 1)], 2, "2 x 2 loader workers on n0 share 2 cores"), ([(0, 1), (2, 3)], 2, ""),
    ([(0,), (1,)], 2, "set run.num_workers=1"), ([(0,)], 0, ""), ([(0,)], 2, "1 x 2 loader workers")])
def test_more_workers_than_cores_give_a_warning(cores, workers, text):
    ranks = [RankInfo(rank, "n0", "cpu", numbers) for rank, numbers in enumerate(cores)]
    warning = warn_few_cores(ranks, workers)
    assert text in warning and bool(text) is bool(warning)


@pytest.mark.parametrize("precision, cpuinfo, slow", [
    ("fp32", "flags\t\t: fpu avx2\n", False), ("bf16", "flags\t\t: fpu avx2 avx512f\n", True), ("fp16", "flags\t\t: fpu avx2\n", True),
    ("bf16", "processor\t: 0\nflags\t\t: fpu avx512_bf16\n\nprocessor\t: 1\n", False), ("bf16", "flags\t\t: amx_bf16 amx_tile", False),
    ("bf16", "Features\t: fp asimd bf16 sm3\n", False), ("bf16", "Features\t: fp asimd asimdhp\n", True),
    ("fp16", "Features\t: fp asimd asimdhp\n", False), ("bf16", "processor\t: 0\n", False), ("bf16", None, False)])
def test_a_precision_that_the_cpu_emulates_gives_a_warning(precision, cpuinfo, slow, tmp_path):
    if cpuinfo is not None:
        (tmp_path / "cpuinfo").write_text(cpuinfo)
    warning = warn_slow_precision(precision, torch.device("cpu"), str(tmp_path / "cpuinfo"))
    if precision == "bf16":  # where the instructions are not known, auto stays with fp32
        known = "flags" in (cpuinfo or "").lower() or "features" in (cpuinfo or "").lower()
        assert fast_precision(torch.device("cpu"), str(tmp_path / "cpuinfo")) == ("bf16" if known and not slow else "fp32")
    assert bool(warning) is slow and (not slow or f"no instructions for {precision}" in warning and "set run.precision=fp32" in warning)


def test_the_processor_has_a_name_where_the_system_knows_it(tmp_path):
    widest = torch.backends.cpu.get_cpu_capability()
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\n\nmodel name\t: another\n")
    assert processor(str(tmp_path / "cpuinfo")) == f"Some CPU @ 2 GHz, {widest}"
    (tmp_path / "cpuinfo").write_text("model name\t: Some CPU\nflags\t\t: fpu avx512_bf16 amx_tile amx_bf16\n")
    assert processor(str(tmp_path / "cpuinfo")) == f"Some CPU, {widest}, amx_bf16, avx512_bf16"
    assert processor(str(tmp_path / "none")).startswith(f"{platform.machine()}, ")


def test_ranks_of_a_host_are_a_range_only_if_they_are_consecutive():
    ranks = [RankInfo(rank, f"n{rank % 2}", "cpu", (rank,)) for rank in range(4)]
    assert world_table(ranks)[1:] == ["0, 2  n0    2 x cpu  2", "1, 3  n1    2 x cpu  2"]


@pytest.mark.parametrize("commit, end", [("", ""), ("0123456789abcdef", ", commit 0123456789ab"),
                                         ("0123456789abcdef+", ", commit 0123456789ab+")])
def test_the_versions_are_one_line_with_the_commit(commit, end, monkeypatch):
    monkeypatch.setattr(environment, "commit", lambda: commit)
    line = versions()
    assert line.startswith(f"python {platform.python_version()}, torch {torch.__version__}, ") and "\n" not in line
    assert line.endswith(end) and ("commit" in line) is bool(commit)
