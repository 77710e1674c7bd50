"""The tables: printed figures as printed, measured ones from the files of runs, and no figure without a run."""

import csv
import html.parser
import io
import json
from pathlib import Path

import pytest
import yaml

from detector.__main__ import main
from detector.config.load import load_config, to_yaml
from detector.config.names import shipped_folder
from detector.config.options import all_options, auto_options
from detector.errors import BadInput
from detector.tables.html import as_html
from detector.tables.measured import PLACE_OPTIONS, read_measured_row
from detector.tables.published import leading_number, read_published_rows, select_rows
from detector.tables.render import HEADER, as_csv, as_markdown, as_text, build_rows

ROW = "voc07-res101-g8-b16"     # printed: 75.2, 0.23 hr an epoch, 8400 MB, tolerance 1.0
STEPS = 626                     # of an epoch of 10,022 images


def make_run(runs: Path, name: str = ROW, ap: float | None = 0.753, seed: int = 0, overrides: tuple = (), processes: int = 8,
             gpus: tuple = ("NVIDIA H100 80GB HBM3",), steps: int = 6260, row: str = ROW) -> Path:
    """Writes a run folder as training does; the second half of the steps is twice as fast as the first."""
    folder = runs / name
    folder.mkdir(parents=True)
    config = load_config(f"tables/{row}", [f"run.name={name}", f"seed={seed}", "data.root=/d", *overrides])
    (folder / "config.yaml").write_text(to_yaml(config))
    (folder / "environment.json").write_text(json.dumps({
        "processes": processes, "gpus": list(gpus) * processes, "cores": 2, "commit": "0123456789abcdef", "host": "n1"}))
    half = steps // 2
    lines = [{"kind": "train", "step": step, "epoch": step / STEPS, "images_per_s": pace, "memory_gib": memory, "lr": 0.01}
            for step, pace, memory in ((half, 40.0, 5.5), (steps, 80.0, 6.0))]
    if ap is not None:
        lines += [{"kind": "evaluation", "step": half, "AP": 0.99, "AP_11point": 0.99},
                 {"kind": "evaluation", "step": steps, "AP": ap, "AP_11point": ap}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "log.txt").write_text("2026-11-24 23:59:59 started\n2026-11-25 01:02:03 finished\n")
    return folder


def table_row(runs: Path, row: str = ROW):
    return build_rows(select_rows(read_published_rows(), row), runs)[0]


# Published rows

def test_every_row_has_a_config_and_every_config_a_row():
    rows = [row.row for row in read_published_rows()]
    assert len(set(rows)) == len(rows) == 25
    assert sorted(rows) == sorted(path.stem for path in (shipped_folder() / "configs" / "tables").glob("*.yaml"))


def test_printed_figures_are_those_of_the_headers():
    """The comment that a user reads in a config, and the cell that the report shows, say the same."""
    for row in read_published_rows():
        header = (shipped_folder() / "configs" / "tables" / f"{row.row}.yaml").read_text().split("# Hardware")[0]
        if row.map:
            assert row.map in header and (not row.tolerance or f"tolerance {row.tolerance}" in header)


@pytest.mark.parametrize("cell, value", [("0.76 hr", 0.76), ("3265MB", 3265), ("1e-3", 0.001), ("1 P100", 1), ("4.4", 4.4),
                                         ("10,022", 10022), ("0.2288 s/step", 0.2288), ("", None), ("not printed", None),
                                         ("16, 22", 16)])
def test_the_number_of_a_cell(cell, value):
    assert leading_number(cell) == value


def test_an_unknown_row_lists_the_rows(capsys):
    with pytest.raises(BadInput, match="choose one of: voc07-vgg16-g1-b1, "):
        select_rows(read_published_rows(), "voc07")
    assert main(["tables", "--row", "voc08"]) == 2 and "voc07-res101-g8-b16" in capsys.readouterr().err


# Measured rows

def test_nothing_is_measured_where_there_is_no_run(tmp_path):
    for runs in (tmp_path, tmp_path / "nowhere"):
        for row in build_rows(read_published_rows(), runs):
            assert not row.measured and not row.gap and not row.speed_up and not row.hardware and not row.date
    assert as_text(build_rows(read_published_rows(), tmp_path)).count("not measured") == len(read_published_rows())


def test_a_run_is_read_as_it_was(tmp_path):
    make_run(tmp_path)
    row = table_row(tmp_path)
    epoch_h = (STEPS * 16 / 40 + STEPS * 16 / 80) / 2 / 3600  # half of the steps at each pace
    assert row.measured == {"model": "resnet101_c4", "gpus": "8", "batch": "16", "lr": "0.01", "lr_decay": "8",
                            "epochs": "10", "time": f"{epoch_h:.3g} hr", "memory": "6144 MiB", "map": "75.3"}
    assert (row.gap, row.verdict, row.speed_up) == ("+0.1", "within 1.0", f"{0.23 / epoch_h:.2f}x")
    assert row.hardware == "8 x NVIDIA H100 80GB HBM3, fp32" and row.commit == "012345678" and row.date == "2026-11-25"
    assert row.seeds == "0" and row.remark == "" and row.printed["map"] == "75.2"


@pytest.mark.parametrize("ap, gap, verdict", [(0.762, "+1.0", "within 1.0"), (0.763, "+1.1", "outside 1.0"),
                                              (0.742, "-1.0", "within 1.0"), (0.74, "-1.2", "outside 1.0")])
def test_the_tolerance_decides_both_ways(tmp_path, ap, gap, verdict):
    make_run(tmp_path, ap=ap)
    row = table_row(tmp_path)
    assert (row.gap, row.verdict) == (gap, verdict)


def test_seeds_give_mean_and_spread(tmp_path):
    for seed, ap in enumerate((0.74, 0.75, 0.76)):
        make_run(tmp_path, ROW + f"-seed{seed}" * (seed > 0), ap, seed)
    row = table_row(tmp_path)
    assert row.measured["map"] == "75.0 ± 1.0" and row.gap == "-0.2" and row.seeds == "0, 1, 2"
    assert read_measured_row(ROW, tmp_path).spread == pytest.approx(1.0)
    make_run(tmp_path, ROW + "-seed3", 0.1, 3, ("optim.lr=1",))
    make_run(tmp_path, ROW + "-seed4", None, 4)
    make_run(tmp_path, ROW + "-mine", 0.99)
    assert table_row(tmp_path).measured["map"] == "75.0 ± 1.0", "neither another config, nor an unfinished run, nor any folder"


def test_a_file_may_stand_for_torchvisions_weights_and_is_named(tmp_path):
    row = "deeppcb-resnet18-fpn"
    make_run(tmp_path, row, 0.5, row=row, processes=1, gpus=(), overrides=("model.weights=/w/part_of_resnet18.pth", "run.precision=bf16"))
    assert table_row(tmp_path, row).hardware == "1 process on 2 CPU cores, bf16, from part_of_resnet18.pth"
    make_run(tmp_path, row + "-seed1", 0.5, 1, row=row, processes=1, gpus=(), overrides=("model.weights=coco",))
    assert table_row(tmp_path, row).seeds == "0"


def test_what_a_row_leaves_to_the_run_is_no_other_config(tmp_path):
    """Training writes the values that it found for `auto` options into the config of the run."""
    row, found = "deeppcb-resnet18-fpn", ("schedule.milestones=[10.667,14.667]", "schedule.warmup_steps=100")
    assert "schedule.milestones" in auto_options(load_config(f"tables/{row}"))
    assert read_measured_row(row, make_run(tmp_path, row, row=row, overrides=found).parent).runs[0].changes == ()


@pytest.mark.parametrize("overrides, remark", [
    (("optim.lr=0.02",), "optim.lr: 0.01 -> 0.02"), (("schedule.steps=6260",), "schedule.steps: 0 -> 6260"),
    (("model.weights=resnet101_caffe.pth",), "model.weights: R-101.pkl -> resnet101_caffe.pth"),
    (("run.precision=bf16", "batch.micro_batch_size=16", "model.weights=/elsewhere/R-101.pkl", "evaluate.batch_size=8",
      "run.num_workers=0"), "")])
def test_a_run_with_another_config_does_not_count_and_says_why(tmp_path, overrides, remark):
    make_run(tmp_path, overrides=overrides)
    row = table_row(tmp_path)
    assert row.remark == remark and row.measured["map"] == "75.3" and bool(row.gap) == (not remark)


def test_a_run_that_is_not_finished_says_how_far_it_is(tmp_path):
    make_run(tmp_path, ap=None, steps=1252)
    row = table_row(tmp_path)
    assert row.measured["map"] == "not yet" and row.remark == "step 1,252 of 6,260" and not row.gap
    assert row.speed_up


def test_an_evaluation_on_the_way_is_not_the_result(tmp_path):
    folder = make_run(tmp_path)
    kept = (folder / "metrics.jsonl").read_text().splitlines()[:-1]  # the one at half of the steps stays
    (folder / "metrics.jsonl").write_text("\n".join(kept) + "\n")
    assert not table_row(tmp_path).gap


def test_every_option_of_the_place_is_an_option_or_a_section():
    """A run may differ in these options from its row; a wrong name would let any run of another place not count."""
    options = all_options()
    for name in PLACE_OPTIONS:
        assert name in options or name.endswith(".") and any(path.startswith(name) for path in options), name


def test_a_run_of_version_0_1_counts(tmp_path):
    """Its config.yaml holds the option names of that version, and `recipe: original`."""
    folder = make_run(tmp_path)
    tree = yaml.safe_load((folder / "config.yaml").read_text())
    optim = tree["optim"]
    optim["rate"], optim["decay"] = optim.pop("lr"), optim.pop("weight_decay")
    tree["model"]["body"], tree["recipe"] = tree["model"].pop("backbone"), "original"
    (folder / "config.yaml").write_text(yaml.safe_dump(tree))
    row = table_row(tmp_path)
    assert row.remark == "" and row.measured["map"] == "75.3"


@pytest.mark.parametrize("name, content", [("config.yaml", "optim: {lr: fast}"), ("environment.json", "{"),
                                           ("metrics.jsonl", ""), ("metrics.jsonl", None), ("config.yaml", None)])
def test_a_folder_that_is_no_run_is_left_out(tmp_path, name, content):
    folder = make_run(tmp_path)
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_text(content)
    assert not table_row(tmp_path).measured


def test_a_row_that_prints_seconds_per_step_is_compared_in_that_unit(tmp_path):
    name = "coco-resnet50-fpn-26e"  # 0.2288 s/step
    make_run(tmp_path, name, 0.372, row=name, steps=26 * STEPS)
    row = table_row(tmp_path, name)
    step_s = (16 / 40 + 16 / 80) / 2
    assert row.measured["time"] == f"{step_s:.3g} s/step" and row.speed_up == f"{0.2288 / step_s:.2f}x"
    assert row.measured["map"] == "37.2" and row.measured["lr_decay"] == "16, 22"


def test_runs_on_a_cpu_are_marked(tmp_path):
    make_run(tmp_path, gpus=(), processes=2)
    row = table_row(tmp_path)
    assert row.hardware == "2 processes on 2 CPU cores, fp32" and row.measured["gpus"] == "CPU"


# Formats

@pytest.fixture
def rows(tmp_path):
    make_run(tmp_path)
    make_run(tmp_path, "voc07-vgg16-g1-b1", None, row="voc07-vgg16-g1-b1", processes=1)
    make_run(tmp_path, "voc07-vgg16-g1-b4", 0.5, row="voc07-vgg16-g1-b4", overrides=("data.classes=[<b>|&]",), steps=5634)
    return build_rows(read_published_rows(), tmp_path)


def test_csv_holds_every_row_once(rows):
    parsed = list(csv.DictReader(io.StringIO(as_csv(rows))))
    assert [row["row"] for row in parsed] == [row.row for row in read_published_rows()]
    mine = next(row for row in parsed if row["row"] == ROW)
    assert (mine["printed_map"], mine["measured_map"], mine["gap"]) == ("75.2", "75.3", "+0.1")
    assert parsed[-1]["measured_map"] == "not measured"
    for row, published in zip(parsed, read_published_rows()):
        assert [row[f"printed_{key}"] for key in HEADER] == [getattr(published, key) for key in HEADER]


def test_markdown_has_as_many_cells_in_every_line(rows):
    for block in as_markdown(rows).split("\n\n"):
        if block.startswith("|"):
            assert len({text.replace("\\|", "").count("|") for text in block.splitlines()}) == 1
    assert "+0.1" in as_markdown(rows) and "### COCO, short side 600" in as_markdown(rows)


def test_text_lines_up(rows):
    for block in as_text(rows).split("\n\n\n"):
        _, _, head, rule, *rest = block.splitlines()
        starts = [head.index(name) for name in ("model", "#GPUs", "mAP", "speed-up")]
        assert len(rule) >= len(head)
        for line in (line for line in rest if " printed " in line or " measured " in line):
            assert line[starts[0]] != " " and all(line[start - 2:start].strip() == "" for start in starts)
    assert "\n  8 x NVIDIA H100 80GB HBM3, fp32; commit 012345678; 2026-11-25" in as_text(rows)


@pytest.mark.parametrize("columns", [60, 80, 140])
def test_text_fits_a_terminal_and_names_what_is_left_out(rows, columns):
    text = as_text(rows, columns)
    assert max(map(len, text.splitlines())) <= columns and "mAP" in text and "+0.1" in text
    assert "\n(not shown: seed" in text and "--csv" in text
    assert "not shown" not in as_text(rows, 300) and as_text(rows, 300).splitlines()[2] == as_text(rows).splitlines()[2]


def test_text_and_markdown_tell_who_printed_the_figures(rows):
    for text in (as_text(rows), as_markdown(rows)):
        assert "Printed by detectron2 MODEL_ZOO: coco-resnet50-fpn-1x, coco-resnet50-fpn-3x" in text
        assert "Printed by jwyang/faster-rcnn.pytorch README" in [line.removeprefix("- ") for line in text.splitlines()]


class Reader(html.parser.HTMLParser):
    """Collects the elements that are open at the end, and every address that the page would load."""

    def __init__(self):
        super().__init__()
        self.open, self.loads, self.rows, self.text = [], [], 0, ""

    def handle_starttag(self, tag, attributes):
        self.loads += [value for name, value in attributes if name in ("src", "href")]
        self.rows += tag == "tbody"
        if tag not in ("meta", "col"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_the_page_is_well_formed_loads_nothing_and_holds_every_row(rows):
    page, reader = as_html(rows), Reader()
    reader.feed(page)
    assert not reader.open and not reader.loads and "url(" not in page and "@import" not in page
    assert reader.rows == len(read_published_rows()) and "prefers-color-scheme: dark" in page
    assert "<b>|" not in page and "-> ['<b>|&']" in reader.text, "values from runs are text"
    assert "75.3" in page and "within 1.0" in page and page.count("not measured") == len(read_published_rows()) - 3 + 1


def test_the_command_writes_every_form(tmp_path, capsys):
    make_run(tmp_path)
    common = ["tables", "--runs", str(tmp_path), "--row", ROW]
    for form, sign in (([], "75.3"), (["--markdown"], "| 75.3 |"), (["--csv"], ",75.3,")):
        assert main([*common, *form]) == 0
        assert sign in capsys.readouterr().out
    page = tmp_path / "new" / "tables.html"
    assert main([*common, "--html", str(page)]) == 0 and str(page) in capsys.readouterr().out
    assert page.read_text().startswith("<!doctype html>")


def test_a_folder_in_place_of_the_page_is_refused(tmp_path, capsys):
    assert main(["tables", "--html", str(tmp_path)]) == 2 and not list(tmp_path.iterdir())
    captured = capsys.readouterr()
    assert captured.err == f"error: --html {tmp_path} is a folder. Name a file, such as {tmp_path}/tables.html\n" and not captured.out
