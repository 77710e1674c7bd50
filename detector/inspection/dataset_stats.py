"""What is in a data set, in numbers: of images and objects, as annotated or as the network sees them.

Six measures; each is one array with a value for each image or each object.
"""

from dataclasses import dataclass

import numpy as np

from detector.structures import area

MEASURES = {  # name: (what it is of, how its histogram is cut)
    "image height": ("images, pixels", "octaves"),
    "image width": ("images, pixels", "octaves"),
    "image height / width": ("images", "ratios"),
    "objects in an image": ("images", "counts"),
    "object side": ("objects, pixels; the square root of the area", "octaves"),
    "object height / width": ("objects", "ratios"),
}
SHARES = (0.05, 0.25, 0.5, 0.75, 0.95)  # of the values that lie below


@dataclass(frozen=True)
class Histogram:
    """counts[i] values lie in edges[i] <= value < edges[i + 1]; the last bin holds its upper edge, too."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]


def measures(sizes: np.ndarray, boxes: np.ndarray, per_image: np.ndarray) -> dict[str, np.ndarray]:
    """The values of MEASURES for sizes [I, 2] (height, width), boxes [N, 4] and objects per image [I]."""
    sizes = np.asarray(sizes, np.float64).reshape(-1, 2)
    wide, high = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    return dict(zip(MEASURES, (sizes[:, 0], sizes[:, 1], sizes[:, 0] / np.maximum(sizes[:, 1], 1), per_image,
                               np.sqrt(area(boxes)), high / np.maximum(wide, 1e-6))))


def quantiles(values: np.ndarray) -> tuple[float, ...]:
    """The values below which SHARES of all lie; nan without values."""
    return tuple(np.quantile(values, SHARES).tolist()) if len(values) else (float("nan"),) * len(SHARES)


def edges(kind: str, values: np.ndarray) -> np.ndarray:
    """Bins that hold all values, the same ones for like data: half octaves, thirds of an octave, or whole numbers."""
    low, high = (float(values.min()), float(values.max())) if len(values) else (1.0, 2.0)
    if kind == "counts":
        width = max(1, int(np.ceil((high + 1) / 30)))
        return np.arange(0, high + 1 + width, width)
    step = {"octaves": 2, "ratios": 3}[kind]
    low, high = (np.log2(max(value, 1e-3)) * step for value in (low, high))
    return 2.0 ** (np.arange(np.floor(low), np.floor(high) + 2) / step)


def histograms(name: str, parts: list[np.ndarray]) -> list[Histogram]:
    """One measure of several data sets, all over the same bins."""
    bins = edges(MEASURES[name][1], np.concatenate([np.asarray(part, np.float64) for part in parts]))
    return [Histogram(tuple(bins.tolist()), tuple(np.histogram(np.clip(part, bins[0], bins[-1]), bins)[0].tolist()))
            for part in parts]


def table(titles: tuple[str, ...], parts: list[dict[str, np.ndarray]]) -> str:
    """The quantiles of every measure, one line for each part."""
    wide = max(map(len, titles))
    lines = [f"{'':>22} {'':>{wide}} " + " ".join(f"{f'{share:.0%}':>8}" for share in SHARES)]
    for name in MEASURES:
        for title, part in zip(titles, parts):
            numbers = " ".join(f"{value:8.4g}" for value in quantiles(part[name]))
            lines.append(f"{name if title == titles[0] else '':>22} {title:>{wide}} {numbers}")
    return "\n".join(lines)
