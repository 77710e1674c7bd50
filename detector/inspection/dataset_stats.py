"""Statistics of the images and objects of a data set: six measures, each an array with a value per image or object."""

from dataclasses import dataclass

import numpy as np

from detector.structures import area

MEASURES = {  # name: (unit, bins of its histogram)
    "image height": ("images, pixels", "octaves"),
    "image width": ("images, pixels", "octaves"),
    "image height / width": ("images", "ratios"),
    "objects per image": ("images", "counts"),
    "object size": ("objects, pixels; the square root of the area", "octaves"),
    "object height / width": ("objects", "ratios"),
}
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class Histogram:
    """counts[i] values lie in edges[i] <= value < edges[i + 1]; the last bin includes its upper edge."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]


def compute_measures(sizes: np.ndarray, boxes: np.ndarray, per_image: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the values of each of MEASURES.

    Args:
        sizes: [I, 2], height and width of each image, pixels.
        boxes: [N, 4], pixels.
        per_image: [I], objects of each image.
    """
    sizes = np.asarray(sizes, np.float64).reshape(-1, 2)
    widths, heights = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    return dict(zip(MEASURES, (sizes[:, 0], sizes[:, 1], sizes[:, 0] / np.maximum(sizes[:, 1], 1), per_image,
                               np.sqrt(area(boxes)), heights / np.maximum(widths, 1e-6))))


def quantiles(values: np.ndarray) -> tuple[float, ...]:
    """Returns the QUANTILES of the values; nan without values."""
    return tuple(np.quantile(values, QUANTILES).tolist()) if len(values) else (float("nan"),) * len(QUANTILES)


def bin_edges(kind: str, values: np.ndarray) -> np.ndarray:
    """Returns the edges of bins that hold all values.

    Args:
        kind: "octaves": half octaves; "ratios": thirds of an octave; "counts": whole numbers, at most about 30 bins.
    """
    low, high = (float(values.min()), float(values.max())) if len(values) else (1.0, 2.0)
    if kind == "counts":
        width = max(1, int(np.ceil((high + 1) / 30)))
        return np.arange(0, high + 1 + width, width)
    per_octave = {"octaves": 2, "ratios": 3}[kind]
    low, high = (np.log2(max(value, 1e-3)) * per_octave for value in (low, high))
    return 2.0 ** (np.arange(np.floor(low), np.floor(high) + 2) / per_octave)


def build_histograms(name: str, parts: list[np.ndarray]) -> list[Histogram]:
    """Returns the histogram of one measure for each of several data sets, over the same bins."""
    edges = bin_edges(MEASURES[name][1], np.concatenate([np.asarray(part, np.float64) for part in parts]))
    return [Histogram(tuple(edges.tolist()),
                      tuple(np.histogram(np.clip(part, edges[0], edges[-1]), edges)[0].tolist())) for part in parts]


def quantile_table(titles: tuple[str, ...], parts: list[dict[str, np.ndarray]]) -> str:
    """Returns a text table of the quantiles of every measure, with one line for each data set."""
    width = max(map(len, titles))
    lines = [f"{'':>22} {'':>{width}} " + " ".join(f"{f'{quantile:.0%}':>8}" for quantile in QUANTILES)]
    for name in MEASURES:
        for title, part in zip(titles, parts):
            numbers = " ".join(f"{value:8.4g}" for value in quantiles(part[name]))
            lines.append(f"{name if title == titles[0] else '':>22} {title:>{width}} {numbers}")
    return "\n".join(lines)
