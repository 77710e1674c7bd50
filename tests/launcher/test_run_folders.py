"""Runs are found below a folder, by name, by the id of their job, and by the folder of their array."""

from pathlib import Path

import pytest
from fake_runs import make_run

from detector.errors import BadInput
from launcher.run_folders import display_name, find_targets, list_runs
from launcher.run_info import add_job_record


def names(targets) -> list[str]:
    return [target.name for target in targets]


def test_nested_runs_are_listed_and_links_are_followed_once(tmp_path):
    for name in ("exp1/lr0.1", "exp1/lr0.1/more", "exp1", "b"):
        make_run(tmp_path / "runs", name, state="finished")
    make_run(tmp_path / "scratch", "far", state="finished")
    (tmp_path / "runs" / "linked").symlink_to(tmp_path / "scratch" / "far")
    (tmp_path / "runs" / "loop").symlink_to(tmp_path / "runs")
    make_run(tmp_path / "runs" / "b" / "code", "no run", state="finished")
    assert [display_name(run, tmp_path / "runs") for run in list_runs(tmp_path / "runs")] == [
        "b", "exp1", "exp1/lr0.1", "exp1/lr0.1/more", "linked"]
    assert [display_name(run, tmp_path / "runs" / "b") for run in list_runs(tmp_path / "runs" / "b")] == ["b"]


def test_a_run_is_found_by_its_folder_its_name_or_its_job(tmp_path):
    run = make_run(tmp_path, "exp 1/a", "7")
    for name, folder in (("exp 1/a", tmp_path), (str(run), Path("elsewhere")), ("7", tmp_path)):
        target, = find_targets([name], folder)
        assert target.run == run
    assert len(find_targets(["exp 1/a", str(run)], tmp_path)) == 2 and len(find_targets(["7", "7"], tmp_path)) == 1


def test_an_array_is_found_by_its_job_its_rows_or_its_folder(tmp_path):
    array = tmp_path / "array-1"
    array.mkdir()
    (array / "array.sbatch").touch()
    for row in range(3):
        run = make_run(tmp_path, f"row{row}", state="training")
        add_job_record(run, job=f"12_{row}", verb="train", log=f"{array}/12_{row}.log", backend="sbatch")
    make_run(tmp_path, "other", "123")
    assert names(find_targets(["12"], tmp_path)) == names(find_targets(["array-1"], tmp_path)) == ["row0", "row1", "row2"]
    target, = find_targets(["12_1"], tmp_path)
    assert (target.name, target.job) == ("row1", "12_1")


@pytest.mark.parametrize("name, message", [
    ("expp1", "no such run: expp1 .did you mean exp1."), ("99", "no run in .* has a job 99"),
    ("group", "group is a folder of runs: .*group/a")])
def test_a_name_without_a_run_says_what_may_be_meant(name, message, tmp_path):
    make_run(tmp_path, "exp1", state="finished")
    make_run(tmp_path, "group/a", state="finished")
    with pytest.raises(BadInput, match=message):
        find_targets([name], tmp_path)


def test_a_link_that_cannot_be_followed_hides_no_run(tmp_path):
    run = make_run(tmp_path, "a", state="finished")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    assert list_runs(tmp_path) == [run]
