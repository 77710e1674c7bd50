"""Compiled parts: the same losses and names, a handful of compilations, and an error without a compiler."""

import pytest
import torch
from conftest import TINY
from torch._dynamo.utils import counters

from detector.config.load import load_config
from detector.errors import BadInput
from detector.model.compile import compile_model, ensure_compiler
from detector.model.faster_rcnn import build_model
from detector.seeding import seed_torch
from detector.structures import Resize

SHAPES = [(96, 160), (96, 192), (160, 192), (96, 192), (96, 160)]


@pytest.fixture
def config(tmp_path):
    (tmp_path / "empty.yaml").write_text("")
    return load_config(str(tmp_path / "empty.yaml"), [*TINY, "data.root=none"])


@pytest.mark.slow
@pytest.mark.parametrize("dynamic, graphs", [(False, 2 * 3 + 1), (True, 3)])  # the box head has one shape
def test_losses_and_gradients_are_those_of_the_eager_model_and_few_shapes_are_compiled(config, dynamic, graphs):
    """backend=aot_eager: what is compiled is the subject, not the C++ code, which takes minutes to build."""
    seed_torch(0)
    eager, compiled = (build_model(config.model, config.evaluate, 3).train() for _ in range(2))
    compiled.load_state_dict(eager.state_dict())
    compile_model(compiled, "default", dynamic, backend="aot_eager")
    assert compiled.state_dict().keys() == eager.state_dict().keys()
    counters.clear()
    images = [torch.randint(0, 256, (3, 60, 90), dtype=torch.uint8) for _ in range(2)]
    targets = [{"boxes": torch.tensor([[5., 5, 40, 50], [30, 10, 80, 55]]), "labels": torch.tensor([1, 3])},
               {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}]
    for min_padded_size in SHAPES:
        results = []
        for model in (eager, compiled):
            seed_torch(1)
            losses = model(images, targets, Resize(64, 128), min_padded_size)
            model.zero_grad()
            sum(losses.values()).backward()
            results.append(({name: loss.detach() for name, loss in losses.items()},
                            torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None])))
        (losses, gradient), (compiled_losses, compiled_gradient) = results
        # Compiled operations may sum in another order: relative to losses of about 1, and to the whole gradient.
        assert list(compiled_losses) == list(losses)
        torch.testing.assert_close(compiled_losses, losses, rtol=1e-4, atol=1e-4)
        assert (compiled_gradient - gradient).norm() < 1e-3 * gradient.norm()
    assert counters["stats"]["unique_graphs"] == graphs
    compiled.eval().predict(images, Resize(96, 128))
    assert counters["stats"]["unique_graphs"] == graphs, "evaluation is not compiled"


@pytest.mark.slow
def test_compiled_code_gives_the_same_numbers(config):
    layer = build_model(config.model, config.evaluate, 3).roi_heads.box_head.train()
    compiled, pooled = torch.compile(layer.forward, dynamic=False), torch.randn(32, 16, 7, 7)
    torch.testing.assert_close(compiled(pooled), layer(pooled), rtol=1e-4, atol=1e-4)  # outputs of about 1, in float32


def test_without_a_compiler_the_error_tells_the_remedy(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    ensure_compiler("off", torch.device("cpu"))
    with pytest.raises(BadInput, match="run.compile=default: no C\\+\\+ compiler found .no-such-compiler.; .*Install g\\+\\+"):
        ensure_compiler("default", torch.device("cpu"))
