"""Writes the annotations of YOLO in place, one text file an image: what is not changed keeps its bytes."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from detector.annotation.layouts import Box, fit_points, rounded
from detector.annotation.texts import compose, read_exactly
from detector.data.formats import yolo
from detector.data.layout_writers import format_number
from detector.data.text_files import read_bytes
from detector.run.files import replace_file

BLANK = "\ufeff\x00 \t\r\n\x1a"  # around the values of a YOLO line


@dataclass(frozen=True)
class YoloFiles:
    """Text files with a line an object. `names`: the classes by number; `keypoints`: numbers behind a line's box."""

    paths: list[str]
    sizes: Sequence[Sequence[int]]
    names: list[str]
    keypoints: int = 0
    grid: float = 0.1

    def texts(self, index: int) -> list[str] | None:
        if not os.path.exists(self.paths[index]):
            return None
        return [line for line in self._lines(index) if line.strip(BLANK)]

    def parse(self, index: int, text: str) -> tuple[str, Box]:
        height, width = self.sizes[index]
        label, *box = yolo.parse_line(text.strip(BLANK).split(), tuple(self.names), self.keypoints,
                                      max(yolo.TOLERANCE, yolo.TOLERANCE_PIXELS / min(height, width)))
        return self.names[label], [value * side for value, side in zip(box, (width, height, width, height))]

    def edit(self, index: int, text: str, name: str, box: Box) -> str:
        height, width = self.sizes[index]
        new = [box[0] / width, box[1] / height, box[2] / width, box[3] / height]
        centered = [format_number(value, 8) for value in (
            (new[0] + new[2]) / 2, (new[1] + new[3]) / 2, new[2] - new[0], new[3] - new[1])]
        number = str(self.names.index(name))
        if not text:
            return f"{number} {' '.join(centered)}\n"
        columns = text.strip(BLANK).split()
        old_name, old_box = self.parse(index, text)
        first = columns[0] if name == old_name else number
        if list(box) == rounded(old_box):
            values = columns[1:]
        elif len(columns) in (5, 6) or self.keypoints and len(columns) == 5 + self.keypoints:
            values = centered + columns[5:]
        else:  # a polygon moves and grows with its box
            old = [old_box[0] / width, old_box[1] / height, old_box[2] / width, old_box[3] / height]
            points = fit_points([*zip(columns[1::2], columns[2::2])], old, new)
            values = [format_number(value, 8) for point in points for value in point]
        ending = text[len(text.rstrip("\r\n")):]
        return " ".join([first, *values]) + ending

    def write(self, index: int, texts: list[str] | None) -> None:
        if texts is None:
            return Path(self.paths[index]).unlink(missing_ok=True)
        lines = self._lines(index) if os.path.exists(self.paths[index]) else []
        gaps = [""]
        for line in lines:
            gaps = [*gaps, ""] if line.strip(BLANK) else [*gaps[:-1], gaps[-1] + line]
        gaps = gaps if len(gaps) > 1 else [gaps[0], ""]
        texts = [text if text.endswith(("\n", "\r")) or (i == len(texts) and not "".join(gaps[i:])) else f"{text}\n"
                 for i, text in enumerate(texts, start=1)]
        replace_file(Path(self.paths[index]), compose(gaps, texts).encode("utf-8"))

    def _lines(self, index: int) -> list[str]:
        content = read_bytes(self.paths[index], "label file")
        return read_exactly(self.paths[index], content, "utf-8").splitlines(keepends=True)
