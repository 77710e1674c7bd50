"""Pickles of arrays, such as detectron2's: read as data, whoever wrote them, and nothing in them is run."""

import os
import pickle
import sys

import numpy as np
import pytest
import torch
from torchvision.models import WeightsEnum

from detector.errors import BadInput
from detector.model.weights.files import read_pickle, read_weights

ARRAYS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.zeros((0, 4), np.float32),
          "c": np.asfortranarray(np.arange(4.0).reshape(2, 2)), "d": np.array(3, np.int64)}


class Evil:
    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("below", ["model", "blobs", None])
def test_arrays_come_back_as_tensors(protocol, below, tmp_path):
    content = {below: ARRAYS, "__author__": "made up", "scale": np.float32(2)} if below else ARRAYS
    (tmp_path / "w.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
    stored = read_weights(str(tmp_path / "w.pkl"))
    assert list(stored.tensors) == list(ARRAYS) and stored.names == [] and stored.settings == {}
    for name, array in ARRAYS.items():
        assert torch.equal(stored.tensors[name], torch.from_numpy(array.copy()))
        assert stored.tensors[name].dtype == torch.from_numpy(array.copy()).dtype


def test_a_pickle_of_python_2_is_read(tmp_path):
    """Its texts are bytes, and so is the content of its arrays: written here opcode by opcode, as protocol 2 has them."""
    data = np.array([1.5, -2.0], np.float32).tobytes()
    array = (b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR"
             + b"(K\x01K\x02\x85cnumpy\ndtype\n(U\x02f4K\x00K\x01tR(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
             + b"\x89U" + bytes([len(data)]) + data + b"tb")
    (tmp_path / "old.pkl").write_bytes(b"\x80\x02}U\x05blobs}U\x07conv1_w" + array + b"ss.")
    stored = read_weights(str(tmp_path / "old.pkl"))
    assert stored.tensors["conv1_w"].tolist() == [1.5, -2.0]


@pytest.mark.parametrize("call, arguments", [
    (os.mkdir, ("made",)), (os.system, ("mkdir made",)), (eval, ("__import__('os').mkdir('made')",)),
    (exec, ("import os; os.mkdir('made')",)), (getattr, ("text", "upper")), (np.load, ("made",)),
    (__import__, ("os",)), (sys.exit, (0,))])
@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_pickle_that_asks_for_anything_else_is_refused_and_not_run(call, arguments, protocol, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = {"model": {"a": ARRAYS["a"], "b": Evil(call, *arguments)}}
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


ORIGINAL = {"pooling": "align_original", "class_agnostic": False, "pixels": "caffe"}


@pytest.mark.parametrize("whole, key, settings", [
    ({}, "RCNN_base.0.weight", {}), ({"pooling_mode": "align"}, "RCNN_base.0.weight", ORIGINAL),
    ({"pooling_mode": "align"}, "RCNN_base.1.running_mean", {**ORIGINAL, "stride_in_1x1": True, "ceil_pool": True}),
    ({"pooling_mode": "crop", "class_agnostic": True}, "a", {**ORIGINAL, "pooling": "crop", "class_agnostic": True}),
    ({}, "res2_0_branch2a_w", {"stride_in_1x1": True}), ({}, "layer1.0.conv1.weight", {})])
def test_a_file_tells_what_it_was_trained_with(whole, key, settings, tmp_path):
    torch.save({"model": {key: torch.ones(1)}, "epoch": 3, **whole}, tmp_path / "w.pth")
    assert read_weights(str(tmp_path / "w.pth")).settings == settings


@pytest.mark.parametrize("name, settings", [
    ("VGG16_Weights.IMAGENET1K_V1", {"pixels": "torchvision"}),
    ("VGG16_Weights.IMAGENET1K_FEATURES", {"pixels": "caffe_rgb"}),
    ("ResNet50_Weights.IMAGENET1K_V2", {"pixels": "torchvision", "stride_in_1x1": False, "ceil_pool": False})])
def test_torchvisions_weights_tell_what_they_were_trained_with(name, settings, monkeypatch):
    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda *args, **kwargs: {"a": torch.ones(1)})
    assert read_weights(name).settings == settings
