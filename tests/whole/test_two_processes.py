"""Two processes on the CPU: the same weights on both, the same metrics as one, and no hang on empty targets."""

import json

import pytest
from processes import CUT_RUN, run, torchrun, train

pytestmark = pytest.mark.whole


def test_torchrun_gives_both_ranks_the_same_weights_and_one_process_the_same_metrics(tiny, config_file, tmp_path):
    hashes = tmp_path / "hashes"
    hashes.mkdir()
    done = torchrun(["-m", "detector", "train", str(config_file), *tiny, "schedule.steps=3"], 2)
    assert done.returncode == 0, done.stdout + done.stderr
    train(0, config_file, [*tiny, "schedule.steps=3", "run.name=hashed"], 2, RANK_HASHES=str(hashes))
    assert (hashes / "rank0").read_text() == (hashes / "rank1").read_text()

    folder = tmp_path / "runs" / "tiny"
    two = json.loads((folder / "results.json").read_text())
    detections = (folder / "detections.json").read_text()
    statuses, said = run(["-m", "detector", "evaluate", str(folder)], 1)
    assert statuses == [0], said
    one = json.loads((folder / "results.json").read_text())
    assert one["metrics"] == two["metrics"] and one["per_class"] == two["per_class"] and one["images"] == 5
    assert (folder / "detections.json").read_text() == detections and json.loads(detections)


def test_a_rank_whose_images_have_no_object_does_not_hang_the_others(tiny, config_file, shapes_root, tmp_path):
    said = json.loads((shapes_root / "annotations" / "instances_train.json").read_text())
    first, second = [image["id"] for image in said["images"]
                     if any(note["image_id"] == image["id"] for note in said["annotations"])][:2]
    said["images"] = [image for image in said["images"] if image["id"] in (first, second)]
    said["annotations"] = [note for note in said["annotations"] if note["image_id"] == first]
    for image in said["images"]:
        image["file_name"] = str(shapes_root / "train" / image["file_name"])
    annotations = tmp_path / "one_empty.json"
    annotations.write_text(json.dumps(said))
    # A step is these two images, one for each rank: in every step exactly one rank has nothing to find.
    train(0, config_file, [*tiny, "data.format=coco", f"data.root={tmp_path}", "data.train=one_empty.json",
                           "data.val=[]", "batch.size=2", "schedule.steps=3"], 2)


def test_a_loss_that_is_not_finite_stops_all_ranks_together_and_is_described(tiny, config_file, tmp_path):
    statuses, said = run([str(CUT_RUN), "0", "train", str(config_file), *tiny, "schedule.steps=30", "optim.lr=1e30",
                          "schedule.warmup_steps=0", "data.val=[]"], 2)
    assert statuses == [1, 1] and "not finite" in said
    for rank in range(2):
        known = json.loads((tmp_path / "runs" / "tiny" / f"not-finite-rank{rank}.json").read_text())
        assert known["step"] > 0 and "losses" in known and "amp_scale" in known


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_trains_and_evaluates(tiny, config_file, tmp_path, precision):
    train(0, config_file, [*tiny, f"run.precision={precision}", "schedule.steps=2", "optim.grad_clip_norm=5"])
    lines = [json.loads(line) for line in (tmp_path / "runs" / "tiny" / "metrics.jsonl").read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["train", "train", "evaluation"]
    assert all(0 < line["loss"] < 100 for line in lines)
