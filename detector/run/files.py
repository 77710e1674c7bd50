"""Files that are written whole, and JSON-lines files that are read back."""

import json
import os
from pathlib import Path


def write_whole(path: Path, text: str, flush: bool = True) -> None:
    """The file appears whole or not at all; without `flush`, only a power cut can make it otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".part")
    with open(beside, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        if flush:
            os.fsync(file.fileno())
    os.replace(beside, path)


def read_lines(path: Path) -> list[dict]:
    """The whole lines of a metrics.jsonl; a line cut short by a crash is left out."""
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            continue
    return lines
