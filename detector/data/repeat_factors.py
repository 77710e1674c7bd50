"""Repeat-factor sampling: images of rare classes are drawn more often. (Gupta et al. 2019, LVIS)

A class c in a fraction f(c) of the images has the repeat factor r(c) = max(1, sqrt(t / f(c))) for a threshold t, and an
image the largest of its classes, 1 without any.
"""

import numpy as np

from detector.config.schema import Config
from detector.errors import shorten
from detector.structures import Dataset

MAX_NAMES = 10  # of classes in the sentence that `describe_repeats` returns


def image_fractions(data: Dataset) -> np.ndarray:
    """Returns the fraction of the images that each class has an object in, float64 [C]."""
    labels = len(data.classes) + 1
    pairs = np.unique(data.image_of_box() * labels + data.labels)  # one number for each image and class
    return np.bincount(pairs % labels, minlength=labels)[1:] / max(len(data), 1)


def class_factors(data: Dataset, threshold: float) -> np.ndarray:
    """Returns the repeat factor of each class, float64 [C]; 1 of a class without objects."""
    fractions = image_fractions(data)
    return np.sqrt(np.divide(threshold, fractions, out=np.ones_like(fractions), where=fractions > 0)).clip(1)


def image_factors(data: Dataset, threshold: float) -> np.ndarray:
    """Returns the repeat factor of each image, float64 [I], 1 or more."""
    factors = np.ones(len(data))
    np.maximum.at(factors, data.image_of_box(), class_factors(data, threshold)[data.labels - 1])
    return factors


def repeat_factors(data: Dataset, config: Config) -> np.ndarray | None:
    """Returns how often each entry of an epoch (`samplers.epoch_sizes`) is drawn, on average.

    Args:
        data: the images and the objects that are trained on.

    Returns:
        float64 [E], each 1 or more; None where all are 1, as without batch.repeat_threshold.
    """
    if not config.batch.repeat_threshold:
        return None
    factors = image_factors(data, config.batch.repeat_threshold)
    if (factors == 1).all():
        return None
    return np.concatenate([factors, factors]) if config.augment.mirrored_copies else factors


def describe_repeats(data: Dataset, threshold: float) -> str:
    """Returns a sentence: how often images of which classes are drawn, or why none is repeated; "" for threshold 0."""
    if not threshold:
        return ""
    fractions, factors = image_fractions(data), class_factors(data, threshold)
    order = np.argsort(np.where(fractions > 0, fractions, np.inf), kind="stable")
    rare = [f"{data.classes[c]} {factors[c]:.3g} times (in {100 * fractions[c]:.3g}% of the images)"
            for c in order if factors[c] > 1]
    if rare:
        images = int((image_factors(data, threshold) > 1).sum())
        return (f"batch.repeat_threshold={threshold:g}: {images} of {len(data)} images have rare classes and are drawn "
                f"more often in each epoch: {shorten(rare, MAX_NAMES)}")
    rarest = f"the rarest class, {data.classes[order[0]]}, is in {100 * fractions[order[0]]:.3g}% of the images" \
        if (fractions > 0).any() else "no class has an object"
    return f"batch.repeat_threshold={threshold:g} repeats no image: {rarest}"
