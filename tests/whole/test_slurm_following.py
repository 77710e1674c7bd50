"""jobs, logs and cancel on a real Slurm: what they tell of jobs that wait, fail on a node and are cancelled."""

import json

from slurm_cluster import log, until
from slurm_fixtures import cluster, needs_slurm, runs  # noqa: F401

pytestmark = needs_slurm


def summary_of(cluster, runs, name: str) -> dict:  # noqa: F811
    summaries = json.loads(cluster.fleet("jobs", str(runs.folder), "--json"))
    return next(summary for summary in summaries if summary["name"] == name)


def test_an_array_that_waits_is_listed_by_row_and_cancelled_as_a_whole(cluster, runs, tmp_path):  # noqa: F811
    rows = tmp_path / "rows.txt"
    rows.write_text("run.name=exp1/lr0.1\nrun.name=größe_数据\nrun.name='my run'\n")
    array = cluster.submit(*runs.arguments, "--on", "sbatch", "--array", str(rows), "--processes", "1", "--sbatch=--hold")
    for row, name in enumerate(("exp1/lr0.1", "größe_数据", "my run")):
        summary = summary_of(cluster, runs, name)
        assert (summary["job"], summary["phase"]) == (f"{array}_{row}", "waiting") and "JobHeldUser" in summary["state"]
        assert f"scontrol release {array}_{row}" in summary["cause"]["remedy"]
    assert "my run is pending (JobHeldUser)" in cluster.fleet("logs", f"{array}_2", "--folder", str(runs.folder), expected=2)
    assert "größe_数据 had not started" in cluster.fleet("cancel", f"{array}_1", "--folder", str(runs.folder))
    assert cluster.call("squeue", "-h", "-r", "-o", "%i").split() == [f"{array}_0", f"{array}_2"]
    output = cluster.fleet("cancel", str(array), "--folder", str(runs.folder), expected=2)
    assert output.count("had not started") == 2 and "größe_数据 is not in the queue" in output
    until(lambda: cluster.call("squeue", "-h") == "", 10)
    assert all(summary_of(cluster, runs, name)["cause"] is None for name in ("exp1/lr0.1", "my run"))


def test_a_job_that_fails_on_a_node_tells_the_error_of_its_rank_and_not_the_last_line_of_its_log(cluster, runs):  # noqa: F811
    run = runs.folder / "no image"
    job = cluster.submit(*runs.arguments, "data.format=voc", f"data.root={runs.folder / 'nowhere'}", "run.name=no image", "--on", "sbatch",
                         "--template", "srun", "--nodes", "2", "--processes", "1")
    assert cluster.wait(job, run) == "FAILED"
    summary = summary_of(cluster, runs, "no image")
    assert str(runs.folder / "nowhere") in summary["cause"]["error"], log(run)
    assert summary["scheduler"]["state"] == "FAILED" and summary["scheduler"]["exit_code"] == "2:0"
    assert summary["cause"]["command"].startswith("fleet-rcnn train ") and "--template srun" in summary["cause"]["command"]
    output = cluster.fleet("logs", job, "--folder", str(runs.folder), "--follow")  # ends at once, and tells the cause
    assert "Slurm: FAILED (NonZeroExitCode), exit status 2" in output
