"""plots/ of a run: one picture for everything that there are numbers of, 800 pixels wide, whole or not at all."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import REPO
from PIL import Image

from detector.run.evaluation_history import read_evaluations
from detector.visualization import plots
from detector.visualization.plot_curves import MAX_CELLS, confused_most
from detector.visualization.plot_history import chosen_classes, draw_losses, legend_name, smooth
from detector.visualization.plots import draw_plots

NAMES = ("losses", "metrics", "pr_curves", "confusion")


def train_lines(steps: int) -> list[dict]:
    return [{"kind": "train", "step": step, "loss": 3 / step, "loss_classifier": 2 / step, "loss_box_reg": 1 / step, "lr": 0.01}
            for step in range(1, steps + 1)]


def evaluation_lines(count: int, classes: list[str]) -> list[dict]:
    return [{"kind": "evaluation", "step": 10 * number, "AP": 0.1 * number, "AP50": 0.2 * number, "APs": -1, "loss": 1 / number,
             "per_class": {name: {"AP": 0.01 * place} for place, name in enumerate(classes)}} for number in range(1, count + 1)]


def make_run(folder: Path, lines: list[dict], classes: list[str] | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if classes is not None:
        (folder / "plots").mkdir()
        curves = [[1.0] * 101 if place else None for place in range(len(classes))]
        content = {"step": 20, "classes": classes, "objects": [3] * len(classes), "precision": curves, "mean_precision": [1.0] * 101,
                   "confusion": (2 * np.eye(len(classes) + 1, dtype=int) + 1).tolist(), "best_score": 0.5, "f1": 0.75}
        (folder / "plots" / "curves.json").write_text(json.dumps(content))
    return folder


def pictures(run: Path) -> dict[str, Image.Image]:
    return {path.stem: Image.open(path) for path in sorted((run / "plots").glob("*.png"))}


@pytest.mark.slow
@pytest.mark.parametrize("classes", [["cat"], ["cat", "dog"], [f"class {number}" for number in range(40)],
                                     ["$x$", "_hidden", "a\\b{", "Katze im Sack, die man nicht kaufen soll", "ネコ"]])
def test_every_plot_is_800_pixels_wide(classes, tmp_path):
    run = make_run(tmp_path / "run", [*train_lines(30), *evaluation_lines(3, classes)], classes)
    draw_plots(run)
    drawn = pictures(run)
    assert set(drawn) == set(NAMES)
    for name, picture in drawn.items():
        assert picture.size == (800, 600)
        assert np.asarray(picture.convert("L")).std() > 5, f"{name} is empty"


@pytest.mark.parametrize("lines, names", [
    ([], set()), (train_lines(1), {"losses"}), (evaluation_lines(1, []), {"metrics"}), (train_lines(2), {"losses"}),
    ([*train_lines(2), {"kind": "evaluation", "step": 2, "AP": None}], {"losses", "metrics"}),
    ([{"kind": "train", "step": 1, "loss": None, "lr": 0.1}], {"losses"}),
    ([{"kind": "train", "step": step, "loss": 0.0, "lr": 0.0} for step in (1, 2)], {"losses"})])
def test_a_run_with_little_to_plot_has_few_plots(lines, names, tmp_path):
    run = make_run(tmp_path / "run", lines)
    assert {path.stem for path in draw_plots(run)} == names == set(pictures(run))


def test_a_plot_that_fails_leaves_the_old_one(tmp_path, monkeypatch):
    run = make_run(tmp_path / "run", train_lines(3))
    draw_plots(run)
    before = (run / "plots" / "losses.png").read_bytes()
    monkeypatch.setattr(plots, "draw_losses", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        draw_plots(run)
    assert (run / "plots" / "losses.png").read_bytes() == before


@pytest.mark.slow
def test_drawing_imports_neither_torch_nor_pyplot(tmp_path):
    run = make_run(tmp_path / "run", train_lines(3))
    code = ("import sys; from detector.visualization.plots import draw_plots, main; from pathlib import Path; "
            f"assert 'matplotlib' not in sys.modules; draw_plots(Path({str(run)!r})); "
            "print(sorted({'torch', 'matplotlib.pyplot', 'matplotlib.figure'} & set(sys.modules)))")
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True)
    assert done.stdout.strip() == "['matplotlib.figure']", done.stderr


def test_curves_are_smoothed_without_those_that_are_not_finite():
    values = np.arange(200.0)
    values[50] = np.nan
    assert smooth(values)[100] == pytest.approx(100) and np.isfinite(smooth(values)).all()
    assert smooth(np.array([2.0])) == [2.0] and np.isnan(smooth(np.array([np.nan]))).all() and len(smooth(np.zeros(0))) == 0


def test_a_very_large_first_loss_does_not_flatten_the_others():
    from matplotlib.figure import Figure
    figure = Figure()
    lines = [{**line, "loss": 1000.0 if line["step"] == 1 else 2.0} for line in train_lines(100)]
    draw_losses(figure, lines, [])
    assert figure.axes[0].get_ylim()[1] < 3


def test_of_many_classes_the_best_and_the_worst_are_plotted(tmp_path):
    run = make_run(tmp_path / "run", evaluation_lines(1, [f"class {number}" for number in range(30)]))
    assert chosen_classes(read_evaluations(run)[0]) == [f"class {number}" for number in (29, 28, 27, 26, 25, 4, 3, 2, 1, 0)]


def test_of_many_classes_those_that_are_confused_most_are_in_the_matrix():
    confusion = np.zeros((101, 101))
    confusion[np.arange(1, 101), np.arange(1, 101)] = 50
    confusion[90, 95] = 7  # row: true, column: predicted
    confusion[0, 40] = 3
    counts, names = confused_most(confusion, [f"class {number}" for number in range(100)])
    assert len(names) == MAX_CELLS and {"class 89", "class 94", "class 39"} <= set(names) and counts.shape == (MAX_CELLS + 1,) * 2
    assert counts[names.index("class 89"), names.index("class 94")] == 7 and counts[-1, names.index("class 39")] == 3


def test_class_names_are_no_markup():
    assert legend_name("_a$b") == r" _a\$b" and len(legend_name("x" * 50)) == 20
