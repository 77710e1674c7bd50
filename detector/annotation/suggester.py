"""Suggests the detections of a run: a thread predicts all images, those near the shown one first."""

import sys
import threading
from dataclasses import dataclass, field

from detector.annotation.label_set import LabelSet
from detector.errors import BadInput
from detector.inference.predictor import Predictor

LOWEST_SCORE = 0.05  # of a suggestion that a page gets; its slider starts there
MAX_SUGGESTIONS = 300


@dataclass
class Suggester:
    """Predicts all images of a label set once, the nearest to `focus` first; of two equally near ones, the later.

    suggestions: by image, best score first: {"name", "score", "box"}. Of an image that cannot be read: [].
    """

    predictor: Predictor
    labels: LabelSet
    focus: int = 0  # position in `labels.indices` of the image that somebody looks at
    suggestions: dict[int, list[dict]] = field(default_factory=dict)

    def start(self) -> None:
        self.pending = list(range(len(self.labels.indices)))
        threading.Thread(target=self._run, daemon=True).start()

    def look_at(self, index: int) -> None:
        """Notes which image somebody looks at."""
        self.focus = self.labels.indices.index(index)

    def _run(self) -> None:
        while self.pending:
            focus = self.focus
            position = min(self.pending, key=lambda other: abs(other - focus) * 2 - (other > focus))
            self.pending.remove(position)
            index = self.labels.indices[position]
            try:
                self.suggestions[index] = self._predict(index)
            except Exception as error:  # of any library, such as of too little memory: labelling goes on
                print(f"no more suggestions, from {self.labels.name(index)} on: {error}", file=sys.stderr, flush=True)
                return
            self.labels.touch(index)

    def _predict(self, index: int) -> list[dict]:
        try:
            image = self.labels.read_image(index)
        except BadInput:  # the page says so where it shows the image
            return []
        detections = self.predictor.detect([image], LOWEST_SCORE)[0]
        height, width = image.shape[-2:]
        limits = (width, height, width, height)
        rows = [{"name": name, "score": round(float(score), 3),
                 "box": [min(max(round(float(value), 1), 0.0), float(limit)) for value, limit in zip(box, limits)]}
                for name, score, box in zip(detections.names, detections.scores, detections.boxes)]
        return [row for row in rows if row["name"] in self.labels.classes and row["box"][2] - row["box"][0] >= 1
                and row["box"][3] - row["box"][1] >= 1][:MAX_SUGGESTIONS]

    def unsure(self, index: int) -> float | None:
        """Returns how unsure the detector is of an image: the variance of its number of objects, where scores are
        probabilities. None: it is not predicted yet."""
        rows = self.suggestions.get(index)
        return None if rows is None else round(sum(row["score"] * (1 - row["score"]) for row in rows), 3)
