"""Some hundred mutated annotation files, lists and configs: each is read, or refused with one error."""

import json
import random
import subprocess
import sys
from pathlib import Path

import annotation_mutations
import annotations_fuzz
import pytest


def test_mutated_files_are_read_or_refused(tmp_path):
    command = [sys.executable, annotations_fuzz.__file__, "--cases", "480", "--seed", "1", "--out", str(tmp_path / "out.jsonl")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    line = json.loads((tmp_path / "out.jsonl").read_text())
    assert sum(line["outcomes"].values()) == line["cases"] == 480 and line["failures"] == []
    for name in annotations_fuzz.targets():
        assert line["outcomes"].get(f"{name}: read", 0) and line["outcomes"][f"{name}: refused"], name


def test_a_failure_is_reported(tmp_path, monkeypatch):
    def read(folder: Path) -> None:
        if json.loads((folder / "a.json").read_bytes()) != [1]:
            raise KeyError("a bug")
    target = annotations_fuzz.Target({"a.json": "[1]"}, read)
    outcomes = {annotations_fuzz.run_case(number, 0, {"mine": target}, tmp_path) for number in range(20)}
    assert any(name == "mine" and "KeyError: 'a bug'" in outcome for name, outcome in outcomes)
    assert (tmp_path / "mine" / "a.json").read_text() == "[1]"


@pytest.mark.parametrize("name, content", [("a.json", b'{"a": [1, {"b": "c"}]}'), ("a.xml", b"<a><b>1</b></a>"), ("a.txt", b"a b\nc\n")])
def test_mutations_are_reproducible_and_various(name, content):
    first, again = ([annotation_mutations.mutate(content, name, random.Random(seed)) for seed in range(200)] for _ in range(2))
    assert first == again and len(set(first)) > 100
