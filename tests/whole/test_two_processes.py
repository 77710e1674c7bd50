"""Two processes on the CPU: equal weights on both, the metrics of one process, and no hang on images without objects."""

import json

import pytest
from processes import CUT_RUN, run, torchrun, train

pytestmark = pytest.mark.whole


def read_results(folder) -> dict:
    """Returns the fields of results.json that do not depend on the time, and the text of detections.json."""
    results = json.loads((folder / "results.json").read_text())
    return {**{key: results[key] for key in ("step", "metrics", "per_class", "images")},
            "detections": (folder / "detections.json").read_text()}


def test_torchrun_gives_both_ranks_the_same_weights_and_the_metrics_of_one_process(tiny, config_file, tmp_path):
    hashes = tmp_path / "hashes"
    hashes.mkdir()
    process = torchrun(["-m", "detector", "train", str(config_file), *tiny, "schedule.steps=3"], 2)
    assert process.returncode == 0, process.stdout + process.stderr
    train(0, config_file, [*tiny, "schedule.steps=3", "run.name=hashed"], 2, RANK_HASHES=str(hashes))
    assert (hashes / "rank0").read_text() == (hashes / "rank1").read_text()

    folder = tmp_path / "runs" / "tiny"
    two_processes = read_results(folder)
    statuses, output = run(["-m", "detector", "evaluate", str(folder)], 1)
    assert statuses == [0], output
    assert read_results(folder) == two_processes
    assert two_processes["images"] == 5 and json.loads(two_processes["detections"])

    # Five images are one batch, so rank 1 has none. Without losses, no rank has any to gather.
    for overrides, has_loss in ((["evaluate.compute_loss=true", "evaluate.tta=flips"], True), (["evaluate.compute_loss=false"], False)):
        results = []
        for processes in (1, 2):
            statuses, output = run(["-m", "detector", "evaluate", str(folder), "evaluate.batch_size=5", *overrides], processes)
            assert statuses == [0] * processes, output
            results.append(read_results(folder))
        assert results[0] == results[1] and ("loss" in results[0]["metrics"]) == has_loss


def test_a_rank_whose_images_have_no_object_does_not_hang_the_others(tiny, config_file, shapes_root, tmp_path):
    content = json.loads((shapes_root / "annotations" / "instances_train.json").read_text())
    first, second = [image["id"] for image in content["images"]
                     if any(annotation["image_id"] == image["id"] for annotation in content["annotations"])][:2]
    content["images"] = [image for image in content["images"] if image["id"] in (first, second)]
    content["annotations"] = [annotation for annotation in content["annotations"] if annotation["image_id"] == first]
    for image in content["images"]:
        image["file_name"] = str(shapes_root / "train" / image["file_name"])
    (tmp_path / "one_empty.json").write_text(json.dumps(content))
    # A step consists of these two images, one on each rank: in every step exactly one rank has no object.
    train(0, config_file, [*tiny, "data.format=coco", f"data.root={tmp_path}", "data.train=one_empty.json",
                           "data.val=[]", "batch.size=2", "schedule.steps=3"], 2)


def test_a_loss_that_is_not_finite_stops_all_ranks_at_the_same_step_and_is_described(tiny, config_file, tmp_path):
    statuses, output = run([str(CUT_RUN), "0", "train", str(config_file), *tiny, "schedule.steps=30", "optim.lr=1e30",
                            "schedule.warmup_steps=0", "data.val=[]"], 2)
    assert statuses == [1, 1] and "not finite" in output
    for rank in range(2):
        details = json.loads((tmp_path / "runs" / "tiny" / f"not-finite-rank{rank}.json").read_text())
        assert details["step"] > 0 and "losses" in details and "amp_scale" in details


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_trains_and_evaluates(tiny, config_file, tmp_path, precision):
    train(0, config_file, [*tiny, f"run.precision={precision}", "schedule.steps=2", "optim.grad_clip_norm=5"])
    lines = [json.loads(line) for line in (tmp_path / "runs" / "tiny" / "metrics.jsonl").read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["train", "train", "evaluation"]
    assert all(0 < line["loss"] < 100 for line in lines)
