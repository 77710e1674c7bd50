"""Files of weights: pickles of arrays, such as detectron2's, are read as data without running code in them."""

import os
import pickle
import sys

import numpy as np
import pytest
import torch
from torchvision.models import WeightsEnum

from detector.config.model_schema import Model
from detector.errors import BadInput
from detector.model.weights.files import local_file, read_pickle, read_weights, verify_download
from detector.run.checkpoint_files import FORMAT, checkpoint_path, mark_best, write_checkpoint

ARRAYS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.zeros((0, 4), np.float32),
          "c": np.asfortranarray(np.arange(4.0).reshape(2, 2)), "d": np.array(3, np.int64)}


class Evil:
    """An object whose unpickling calls a function."""

    def __init__(self, call, *args):
        self.call, self.args = call, args

    def __reduce__(self):
        return self.call, self.args


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("key", ["model", "blobs", None])
def test_arrays_become_tensors(protocol, key, tmp_path):
    content = {key: ARRAYS, "__author__": "made up", "scale": np.float32(2)} if key else ARRAYS
    (tmp_path / "w.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
    stored = read_weights(str(tmp_path / "w.pkl"))
    assert list(stored.tensors) == list(ARRAYS) and stored.class_names == [] and stored.settings == {}
    for name, array in ARRAYS.items():
        assert torch.equal(stored.tensors[name], torch.from_numpy(array.copy()))
        assert stored.tensors[name].dtype == torch.from_numpy(array.copy()).dtype


def test_a_pickle_of_python_2_is_read(tmp_path):
    """Texts and the content of arrays are bytes in it: written opcode by opcode, in protocol 2."""
    data = np.array([1.5, -2.0], np.float32).tobytes()
    array = (b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR"
             + b"(K\x01K\x02\x85cnumpy\ndtype\n(U\x02f4K\x00K\x01tR(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
             + b"\x89U" + bytes([len(data)]) + data + b"tb")
    (tmp_path / "old.pkl").write_bytes(b"\x80\x02}U\x05blobs}U\x07conv1_w" + array + b"ss.")
    stored = read_weights(str(tmp_path / "old.pkl"))
    assert stored.tensors["conv1_w"].tolist() == [1.5, -2.0]


@pytest.mark.parametrize("call, args", [
    (os.mkdir, ("made",)), (os.system, ("mkdir made",)), (eval, ("__import__('os').mkdir('made')",)),
    (exec, ("import os; os.mkdir('made')",)), (getattr, ("text", "upper")), (np.load, ("made",)),
    (__import__, ("os",)), (sys.exit, (0,))])
@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_pickle_with_any_other_function_is_refused_and_not_run(call, args, protocol, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = {"model": {"a": ARRAYS["a"], "b": Evil(call, *args)}}
    (tmp_path / "w.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
    with pytest.raises(BadInput, match=r"w\.pkl is no file of tensors: it asks for .*, which an array of weights does not"):
        read_weights(str(tmp_path / "w.pkl"))
    assert not (tmp_path / "made").exists()
    with pytest.raises(pickle.UnpicklingError):
        read_pickle(str(tmp_path / "w.pkl"))


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", pickle.dumps({"model": ARRAYS})[:-20],
                                     pickle.dumps([1, 2]), pickle.dumps({"model": {"a": "text"}}),
                                     pickle.dumps({"model": {"a": np.array(["x"], dtype=object)}})])
def test_a_broken_or_foreign_pickle_is_named(content, tmp_path):
    (tmp_path / "w.pkl").write_bytes(content)
    with pytest.raises(BadInput, match="w.pkl"):
        read_weights(str(tmp_path / "w.pkl"))


ORIGINAL = {"roi_pooling": "align_original", "class_agnostic": False, "pixel_format": "caffe"}


@pytest.mark.parametrize("outer, key, settings", [
    ({}, "RCNN_base.0.weight", {}), ({"pooling_mode": "align"}, "RCNN_base.0.weight", ORIGINAL),
    ({"pooling_mode": "align"}, "RCNN_base.1.running_mean", {**ORIGINAL, "stride_in_1x1": True, "ceil_pool": True}),
    ({"pooling_mode": "crop", "class_agnostic": True}, "a", {**ORIGINAL, "roi_pooling": "crop", "class_agnostic": True}),
    ({}, "res2_0_branch2a_w", {"stride_in_1x1": True}), ({}, "layer1.0.conv1.weight", {})])
def test_a_file_tells_the_options_it_was_trained_with(outer, key, settings, tmp_path):
    torch.save({"model": {key: torch.ones(1)}, "epoch": 3, **outer}, tmp_path / "w.pth")
    assert read_weights(str(tmp_path / "w.pth")).settings == settings


@pytest.mark.parametrize("name, settings", [
    ("VGG16_Weights.IMAGENET1K_V1", {"pixel_format": "torchvision"}),
    ("VGG16_Weights.IMAGENET1K_FEATURES", {"pixel_format": "caffe_rgb"}),
    ("ResNet50_Weights.IMAGENET1K_V2", {"pixel_format": "torchvision", "stride_in_1x1": False, "ceil_pool": False})])
def test_torchvisions_weights_tell_the_options_they_were_trained_with(name, settings, monkeypatch):
    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda *args, **kwargs: {"a": torch.ones(1)})
    assert read_weights(name).settings == settings


@pytest.mark.parametrize("outer, key", [({"pooling_mode": "align"}, "RCNN_base.1.running_mean"), ({}, "res2_0_branch2a_w")])
def test_every_setting_is_an_option_of_the_model(outer, key, tmp_path):
    torch.save({"model": {key: torch.ones(1)}, **outer}, tmp_path / "w.pth")
    stored = read_weights(str(tmp_path / "w.pth")).settings
    assert stored and all(hasattr(Model(), option) for option in stored)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_flipped_bit_in_a_file_of_torch_save_is_found_where_the_file_tells(legacy, tmp_path):
    path = tmp_path / "w.pth"
    torch.save({"model": {"a": torch.full((1000,), 1.5)}}, path, _use_new_zipfile_serialization=not legacy)
    assert read_weights(str(path)).tensors["a"][7] == 1.5
    data = bytearray(path.read_bytes())
    data[data.index(np.full(1000, 1.5, np.float32).tobytes()) + 2002] ^= 64
    path.write_bytes(data)
    if legacy:  # the format before PyTorch 1.6 has no checksums
        assert len(read_weights(str(path)).tensors["a"]) == 1000
    else:
        with pytest.raises(BadInput, match="w.pth is damaged: the CRC of its part .* is wrong. Copy or download it again"):
            read_weights(str(path))


def test_a_checkpoint_of_a_run_is_verified_by_its_digest(tmp_path):
    path = write_checkpoint(tmp_path, {"format": FORMAT, "step": 1, "model": {"a": torch.ones(3)}, "config": {}})
    assert read_weights(str(path)).tensors["a"].tolist() == [1, 1, 1]
    data = bytearray(path.read_bytes())
    data[10] ^= 1  # the time in the header of the first part: no CRC covers it
    path.write_bytes(data)
    with pytest.raises(BadInput, match="is damaged: its .* bytes are not those"):
        read_weights(str(path))


def test_a_run_folder_names_its_best_checkpoint_or_else_the_newest(tmp_path):
    run = tmp_path / "run"
    with pytest.raises(BadInput, match="no such file.*or a run folder"):
        read_weights(str(run))
    for step in (10, 20):
        write_checkpoint(run, {"format": FORMAT, "step": step, "model": {"weight": torch.full((1,), float(step))}, "config": {},
                               "classes": ["cat"]})
    assert read_weights(str(run)).tensors["weight"].item() == 20
    mark_best(run, checkpoint_path(run, 10))
    assert read_weights(str(run)).tensors["weight"].item() == 10
    assert read_weights(str(run)).class_names == ["__background__", "cat"]


def test_a_run_is_named_by_its_name_below_runs_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = {"format": FORMAT, "step": 1, "model": {"weight": torch.ones(1)}, "config": {}, "classes": ["cat"]}
    write_checkpoint(tmp_path / "runs" / "tiny", content)
    assert local_file("tiny") == local_file("runs/tiny") == "runs/tiny/checkpoints/step-00000001.pt"
    (tmp_path / "tiny").write_text("")
    assert local_file("tiny") == "tiny"  # a file of this name comes first
    assert local_file("none") == ""


def test_a_damaged_download_is_named_with_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    path = tmp_path / "checkpoints" / "resnet18-f37072fd.pth"
    path.parent.mkdir()
    for legacy in (False, True):
        torch.save({"a": torch.ones(300)}, path, _use_new_zipfile_serialization=not legacy)
        data = bytearray(path.read_bytes())
        data[data.index(np.ones(300, np.float32).tobytes()) + 602] ^= 64
        path.write_bytes(data)
        with pytest.raises(BadInput, match=f"{path} is damaged. Remove it, and download https"):
            read_weights("ResNet18_Weights.IMAGENET1K_V1")
    verify_download(str(tmp_path / "none-f37072fd.pth"))
    path.with_name("a-2cf24dba.pth").write_text("hello")  # the start of its SHA-256
    verify_download(str(path.with_name("a-2cf24dba.pth")))


class Custom:
    """An object that a file of tensors does not hold."""


def test_a_file_of_another_kind_is_refused_without_the_advice_to_run_its_code(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff\xe0" + bytes(300))
    (tmp_path / "text.pth").write_text("no weights")
    torch.save({"model": Custom()}, tmp_path / "code.pth")
    for name, message in (("photo.jpg", "torch.save has not written it"), ("text.pth", "torch.save has not written it"),
                          ("code.pth", r"it asks for \S*Custom, which tensors do not need. Save the state dict alone")):
        with pytest.raises(BadInput, match=message) as caught:
            read_weights(str(tmp_path / name))
        assert "weights_only" not in str(caught.value) and "\n" not in str(caught.value)
