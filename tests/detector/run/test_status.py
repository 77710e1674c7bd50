"""status.json: written by rank 0 only, and not where bad input made no run folder."""

import errno
import json
import time

import pytest

from detector.errors import BadInput
from detector.run.status import Status, StatusFile, read_previous_status, read_status


def read(folder) -> dict:
    return json.loads((folder / "status.json").read_text())


def test_the_fields_a_launcher_reads(tmp_path):
    with StatusFile(tmp_path, is_main=True) as status:
        status.update("starting")
        assert read(tmp_path)["state"] == "starting"
        status.update("training", step=3, total_steps=10, images_per_s=1.5, seconds_left=4.0, saved_in_s=0.1)
        before = time.time()
        status.update("stopped", step=4, by="SIGUSR1")
    fields = read(tmp_path)
    assert read_status(tmp_path) == fields and 0 <= fields.pop("at") - before < 5
    assert fields == {"state": "stopped", "step": 4, "total_steps": 10, "saved_in_s": 0.1, "by": "SIGUSR1",
                      "images_per_s": 1.5, "seconds_left": 4.0}


def test_steps_alone_are_not_written_more_than_once_a_second_but_every_change_of_state_is(tmp_path):
    status = StatusFile(tmp_path, is_main=True)
    for step in range(5):
        status.update("training", step=step)
    assert read(tmp_path)["step"] == 0
    status.update("evaluating")
    assert (read(tmp_path)["state"], read(tmp_path)["step"]) == ("evaluating", 4)


def test_an_error_is_a_failure_and_other_ranks_and_missing_folders_write_nothing(tmp_path):
    for is_main, folder in ((False, tmp_path), (True, tmp_path / "nowhere")):
        with pytest.raises(ValueError), StatusFile(folder, is_main) as status:
            status.update("training", step=1)
            raise ValueError
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError), StatusFile(tmp_path, True) as status:
        status.update("training", step=7)
        raise ValueError
    assert (read(tmp_path)["state"], read(tmp_path)["step"]) == ("failed", 7)


def test_a_stop_before_there_is_a_run_folder_is_written(tmp_path):
    StatusFile(tmp_path / "new", is_main=True).update("stopped", by="SIGTERM")
    assert read(tmp_path / "new")["state"] == "stopped"


def test_a_start_that_is_cut_short_keeps_the_step_of_the_one_before(tmp_path):
    StatusFile(tmp_path, is_main=True).update("stopped", step=40, total_steps=90, saved_in_s=1.0, by="SIGTERM")
    StatusFile(tmp_path, is_main=True).update("starting")
    fields = read(tmp_path)
    assert (fields["state"], fields["step"], fields["total_steps"], fields["by"]) == ("starting", 40, 90, "")


@pytest.mark.parametrize("before, after", [("finished", "finished"), ("stopped", "stopped"), ("starting", "failed")])
def test_a_start_with_bad_input_leaves_the_state_of_the_run(before, after, tmp_path):
    StatusFile(tmp_path, is_main=True).update(before, step=40, total_steps=90)
    with pytest.raises(BadInput), StatusFile(tmp_path, True) as status:
        status.update("starting")
        raise BadInput("model.backbone=resnet5: no such backbone")
    assert (read(tmp_path)["state"], read(tmp_path)["step"]) == (after, 40)


def test_a_start_that_another_start_of_a_new_run_has_overtaken_leaves_its_state(tmp_path):
    with pytest.raises(BadInput), StatusFile(tmp_path / "new", True) as status:
        status.update("starting")
        (tmp_path / "new").mkdir()
        StatusFile(tmp_path / "new", True).update("training", step=3)
        raise BadInput("another process trains this run")
    assert (read(tmp_path / "new")["state"], read(tmp_path / "new")["step"]) == ("training", 3)


def test_training_continues_where_the_state_cannot_be_written(tmp_path, monkeypatch):
    status = StatusFile(tmp_path, True)
    status.update("starting")

    def stale(*_args, **_options):
        raise OSError(errno.ESTALE, "Stale file handle")
    with monkeypatch.context() as patched:
        patched.setattr(type(tmp_path), "stat", stale)
        status.update("training", step=2)
    assert read(tmp_path)["state"] == "starting" and status.current.step == 2


@pytest.mark.parametrize("text", ["", "{", "[]", '{"unknown": 1}'])
def test_a_file_of_another_kind_is_no_status(text, tmp_path):
    (tmp_path / "status.json").write_text(text)
    assert read_previous_status(tmp_path) == Status()


def test_a_run_without_a_status_is_at_its_start(tmp_path):
    assert read_status(tmp_path) == {} and read_previous_status(tmp_path) == Status()


def test_values_of_another_type_are_left_out(tmp_path):
    (tmp_path / "status.json").write_text('{"state": "training", "step": "12", "images_per_s": "fast", "total_steps": 9, "by": []}')
    assert read_status(tmp_path) == {"state": "training", "total_steps": 9}
