"""The verb evaluate: from a run folder to results.json, which stays the run's own whatever else is evaluated."""

import errno
import json
import shutil
from dataclasses import fields
from pathlib import Path

import pytest
import torch

from detector.__main__ import main
from detector.config.load import load_config, to_yaml
from detector.config.schema import Evaluate
from detector.data.formats.shapes import CLASSES
from detector.errors import BadInput
from detector.evaluation.evaluate_run import evaluate_checkpoint, evaluate_run
from detector.evaluation.record_folder import MEASURED, changed_options, folder_name, record_folder
from detector.model.faster_rcnn import build_model
from detector.run import checkpoint_files
from detector.training.checkpoint import TrainState, checkpoint_content
from detector.training.optimizer import build_optimizer


@pytest.fixture
def config(tiny, config_file):
    return load_config(str(config_file), tiny)


@pytest.fixture
def run_folder(config, tmp_path) -> Path:
    """The folder of a run with a checkpoint of step 12."""
    folder = tmp_path / "runs" / "tiny"
    torch.manual_seed(0)
    model = build_model(config.model, config.evaluate, len(CLASSES))
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    state = TrainState(model, build_optimizer(model, config.optim), scaler, None, step=12)
    checkpoint_files.write_checkpoint(folder, checkpoint_content(state, config, CLASSES, 4))
    (folder / "config.yaml").write_text(to_yaml(config))
    return folder


def results(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


def test_a_run_is_evaluated_from_its_folder_alone(run_folder, tmp_path, capsys):
    assert evaluate_run(str(run_folder), ["evaluate.batch_size=3", "run.num_workers=0"], "best")
    output = capsys.readouterr().out
    assert "step-00000012.pt, step 12" in output and "AP50" in output and "triangle" in output
    record = results(run_folder)
    assert record["step"] == 12 and set(record["per_class"]) == set(CLASSES) and "AP50" in record["metrics"]
    assert (record["data"], record["metric"], record["overrides"]) == ("coco val", "coco", [])
    assert record["checkpoint"].endswith("step-00000012.pt") and not (run_folder / "evaluations").exists()
    for checkpoint, message in (("none.pt", "no such checkpoint: none.pt"), ("best", "no such run folder")):
        with pytest.raises(BadInput, match=message):
            evaluate_run(str(run_folder) if checkpoint == "none.pt" else str(tmp_path / "none"), [], checkpoint)


def test_a_damaged_checkpoint_is_named_with_one_that_can_be_taken_instead(run_folder, tmp_path):
    step = run_folder / "checkpoints" / "step-00000012.pt"
    best = step.with_name("best.pt")
    data = step.read_bytes()
    at = len(data) // 2
    best.write_bytes(data[:at] + bytes([data[at] ^ 64]) + data[at + 1:])
    with pytest.raises(BadInput, match=f"{best} is damaged .*: its {len(data)} bytes are not those .* --checkpoint {step}"):
        evaluate_run(str(run_folder), [], "best")
    assert evaluate_checkpoint(str(run_folder), [], str(step)).evaluation.step == 12
    step.write_bytes(best.read_bytes())
    with pytest.raises(BadInput, match="step-00000012.pt is damaged .* Restore it from a copy, or train again"):
        evaluate_run(str(run_folder), [], "last")
    assert not (run_folder / "results.json").exists()


def rewrite(path: Path, name: str, value: float) -> None:
    content = checkpoint_files.read_checkpoint(path)
    content["model"][name].fill_(value)
    checkpoint_files.write_checkpoint(path.parent.parent, content)


def test_a_network_that_has_diverged_is_said_to_have(run_folder, capsys):
    step = run_folder / "checkpoints" / "step-00000012.pt"
    rewrite(step, "rpn.head.cls_logits.weight", 3e38)  # finite, but what it gives is not
    assert evaluate_run(str(run_folder), [], "best", report=True)
    assert "outputs are infinite or NaN in the batches of" in capsys.readouterr().out
    assert "NaN" not in (run_folder / "results.json").read_text() and results(run_folder)["metrics"]["AP"] is None
    assert results(run_folder)["not_finite"] == results(run_folder)["images"] and (run_folder / "report.html").is_file()
    rewrite(step, "rpn.head.cls_logits.weight", float("nan"))
    with pytest.raises(BadInput, match="weights rpn.head.cls_logits.weight are not finite: .* diverged at step 12"):
        evaluate_run(str(run_folder), [], "best")


def test_another_metric_is_written_beside_the_record_of_the_run(run_folder, capsys):
    evaluate_run(str(run_folder), [], "best")
    record = (run_folder / "results.json").read_bytes()
    assert evaluate_run(str(run_folder), ["evaluate.metric=voc", "evaluate.best_metric=AP"], "best", report=True)
    folder = run_folder / "evaluations" / "voc"
    output = capsys.readouterr().out
    assert f"are in {folder}; those in {run_folder} stay: this evaluation has other values of evaluate.metric" in output
    assert (run_folder / "results.json").read_bytes() == record and not (run_folder / "report.html").exists()
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.yaml", "detections.json", "labels_to_review.csv", "report.html", "results.json"]
    assert results(folder)["metric"] == "voc" and results(folder)["overrides"] == ["evaluate.metric=voc"]
    assert main(["compare", str(folder), str(folder), "--resamples", "20"]) == 0
    output = capsys.readouterr().out
    assert f"A: {folder} (step-00000012.pt of step 12, coco val" in output and "metric voc)" in output
    assert main(["compare", str(run_folder), str(folder)]) == 2
    assert "evaluate.metric is coco and voc" in capsys.readouterr().err


def test_another_checkpoint_is_written_beside_the_record_of_the_run(run_folder, tmp_path, capsys):
    step = run_folder / "checkpoints" / "step-00000012.pt"
    assert main(["evaluate", str(run_folder), "--checkpoint", "last"]) == 0  # there is no best one yet: the newest is the run's
    checkpoint_files.mark_best(run_folder, step)
    assert main(["evaluate", str(run_folder), "--checkpoint", "last"]) == 0  # it is the best one
    shutil.copy(step, step.with_name("copy.pt"))
    step.with_name("copy.pt").replace(step.with_name("best.pt"))
    assert main(["evaluate", str(run_folder), "--checkpoint", str(step.with_name("best.pt"))]) == 0
    assert not (run_folder / "evaluations").exists() and results(run_folder)["overrides"] == []
    record = (run_folder / "results.json").read_bytes()
    assert results(run_folder)["checkpoint"].endswith("best.pt")
    shutil.copytree(step.parent, tmp_path / "other" / "checkpoints")
    capsys.readouterr()
    for checkpoint in ("last", str(step), str(tmp_path / "other" / "checkpoints" / "step-00000012.pt"), "last"):
        assert main(["evaluate", str(run_folder), "--checkpoint", checkpoint, "--report"]) == 0
    assert f"those in {run_folder} stay: this evaluation has other values of checkpoint" in capsys.readouterr().out
    names = sorted(folder.name for folder in (run_folder / "evaluations").iterdir())
    assert len(names) == 3 and names[:2] == ["checkpoint=last", "checkpoint=step-00000012.pt"]
    assert (run_folder / "results.json").read_bytes() == record
    folder = run_folder / "evaluations" / "checkpoint=last"
    assert results(folder)["checkpoint"] == str(step) and results(folder)["overrides"] == ["checkpoint=last"]
    assert f"fleet-rcnn evaluate {run_folder} --checkpoint last --report" in (folder / "report.html").read_text()
    assert main(["compare", str(run_folder), str(folder), "--resamples", "20"]) == 0


def test_other_data_is_written_beside_the_record_of_the_run(run_folder, capsys):
    assert evaluate_run(str(run_folder), ["data.val=train"], "best")
    assert results(run_folder / "evaluations" / "train")["images"] == 10 and not (run_folder / "results.json").exists()


def test_options_that_change_speed_alone_are_no_other_evaluation(config):
    base = load_config("shapes/demo", [])
    for override in ("run.num_workers=3", "evaluate.batch_size=7", "data.cache=/tmp/x", "schedule.epochs=3"):
        assert changed_options(base, load_config("shapes/demo", [override])) == {}
    changes = ["evaluate.max_detections=300", "run.device=cpu", "run.precision=bf16"]
    assert list(changed_options(base, load_config("shapes/demo", changes))) == ["run.precision", "evaluate.max_detections"]


def test_every_other_option_of_evaluation_makes_another_evaluation():
    of_speed = {"every_epochs", "batch_size", "compute_loss", "best_metric"}
    assert {f"evaluate.{field.name}" for field in fields(Evaluate) if field.name not in of_speed} == {
        option for option in MEASURED if option.startswith("evaluate.")}


@pytest.mark.parametrize("changes, name", [
    ({"data.val": ["annotations/instances_test2017.json"]}, "instances_test2017"), ({"data.val": ["a", "b"]}, "a+b"),
    ({"data.root": "/data/other/", "data.val": ["val"]}, "other-val"), ({"evaluate.metric": "voc"}, "voc"),
    ({"evaluate.max_detections": 300}, "max_detections=300"), ({"data.val": ["../my set.json"]}, "my-set"),
    ({"data.val": ["0.2"]}, "0.2"), ({"data.val": [".."]}, "other")])
def test_the_folder_is_named_after_what_differs(changes, name):
    assert folder_name(changes) == name


def test_two_evaluations_of_one_name_have_folders_of_their_own(tmp_path):
    first, second = {"data.root": "/a/data"}, {"data.root": "/b/data"}
    folder = record_folder(tmp_path, first)
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps({"overrides": ["data.root=/a/data"]}))
    assert record_folder(tmp_path, first) == folder and record_folder(tmp_path, {}) == tmp_path
    assert record_folder(tmp_path, second).name.startswith("data-") and record_folder(tmp_path, second) != folder


def test_images_that_could_not_be_read_are_said(run_folder, shapes_root, tmp_path, capsys):
    root = tmp_path / "damaged"
    shutil.copytree(shapes_root, root)
    (root / "val" / "00002.jpg").write_bytes(b"no image")
    overrides = [f"data.root={root}", "data.unreadable_images=grey"]
    assert evaluate_run(str(run_folder), overrides, "best")
    assert "note: 1 of 5 images could not be read: their objects count as missed. First: " in capsys.readouterr().out
    folder = str(run_folder / "evaluations" / "damaged-unreadable_images=grey")
    assert main(["compare", folder, folder, "--resamples", "20"]) == 0 and "1 of 5 images could not be" in capsys.readouterr().out
    shutil.rmtree(root / "val")
    with pytest.raises(BadInput, match="none of the 5 images"):
        evaluate_run(str(run_folder), overrides, "best")


def test_validation_data_without_objects_is_said(run_folder, shapes_root, tmp_path, capsys):
    annotations = json.loads((shapes_root / "annotations" / "instances_val.json").read_text())
    for annotation in annotations["annotations"]:
        annotation["iscrowd"] = 1
    for image in annotations["images"]:
        image["file_name"] = str(shapes_root / "val" / image["file_name"])
    (tmp_path / "crowd.json").write_text(json.dumps(annotations))
    assert evaluate_run(str(run_folder), [f"data.root={tmp_path}", "data.val=crowd.json", "data.format=coco"], "best")
    assert "has no object to be found; its" in capsys.readouterr().out
    folder = next((run_folder / "evaluations").iterdir())
    assert main(["compare", str(folder), str(folder)]) == 2
    assert "nothing to compare: coco crowd.json has no object to be found" in capsys.readouterr().err


def test_a_checkpoint_is_evaluated_without_writing_or_printing(run_folder, capsys):
    files_before = sorted(run_folder.rglob("*"))
    result = evaluate_checkpoint(str(run_folder), ["evaluate.compute_loss=false"])
    assert result.checkpoint.name == "step-00000012.pt" and result.evaluation.step == 12
    assert result.analysis.classes == result.dataset.classes == CLASSES
    assert result.analysis.metrics == result.evaluation.metrics and len(result.detections) > 0
    assert sorted(run_folder.rglob("*")) == files_before and capsys.readouterr().out == ""


def test_a_stopped_evaluation_of_a_run_writes_nothing(run_folder, capsys):
    files_before = sorted(run_folder.rglob("*"))
    assert evaluate_checkpoint(str(run_folder), [], "best", lambda: True) is None
    assert not evaluate_run(str(run_folder), [], "best", lambda: True)
    assert sorted(run_folder.rglob("*")) == files_before and capsys.readouterr().out == ""


def test_an_option_of_training_has_no_effect_on_an_evaluation_and_is_refused(run_folder):
    with pytest.raises(BadInput, match="model.roi_pooling, optim.lr: no effect on an evaluation"):
        evaluate_run(str(run_folder), ["optim.lr=7", "model.roi_pooling=pool"], "best")


def test_other_classes_than_those_of_the_model_are_refused(run_folder, capsys):
    for classes in ("[circle]", "[typo]"):
        assert main(["evaluate", str(run_folder), f"data.classes={classes}"]) == 2
        assert "data.classes: no effect on an evaluation, which takes the model as it was trained. Leave it out. " \
            "The metrics of each class are in results.json" in capsys.readouterr().err
    assert not (run_folder / "evaluations").exists()


def test_json_is_one_object_for_evaluate_and_compare(run_folder, capsys):
    assert main(["evaluate", str(run_folder), "--json", "run.num_workers=0"]) == 0
    evaluation = json.loads(capsys.readouterr().out)
    assert evaluation["folder"] == str(run_folder) and evaluation["metrics"] == results(run_folder)["metrics"]
    assert set(evaluation) == {*results(run_folder), "run", "folder", "notes"} and isinstance(evaluation["notes"], list)
    assert main(["compare", str(run_folder), str(run_folder), "--resamples", "20", "--json"]) == 0
    comparison = json.loads(capsys.readouterr().out)
    assert comparison["a"] == comparison["b"] and comparison["a"]["step"] == 12 and comparison["images"] == 5
    assert comparison["differences"]["all"]["difference"] == 0 and comparison["differences"]["all"]["significant"] is False
    assert {f"class {name}" for name in CLASSES} <= set(comparison["differences"])


def test_what_evaluate_says_where_a_stop_was_requested(run_folder, monkeypatch, capsys):
    monkeypatch.setattr("detector.evaluation.evaluate_run.evaluate_run", lambda *_: False)
    assert main(["evaluate", str(run_folder)]) == 75
    assert "nothing was written" in capsys.readouterr().out


def test_json_without_an_evaluation_of_a_run_is_refused(capsys):
    assert main(["evaluate", "some", "--json", "--time"]) == 2
    assert "--json with --time" in capsys.readouterr().err


def test_metrics_are_printed_also_where_the_run_cannot_be_written(run_folder, monkeypatch, capsys):
    def fail(path, *_arguments):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))
    monkeypatch.setattr("detector.evaluation.results.write_whole", fail)
    assert main(["evaluate", str(run_folder)]) == 2
    out, err = capsys.readouterr()
    assert "AP50" in out and "results.json and" not in out and "detections.json: Permission denied: the results are not written" in err
    assert "copy the run to a folder that this user can write" in err and not (run_folder / "results.json").exists()
