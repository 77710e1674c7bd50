"""Names of the same split, as programs write them."""

SPLIT_NAMES = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}


def same_splits(name: str) -> tuple[str, ...]:
    """Returns the names that stand for a split, with that of its year left out: train2017 is train and training."""
    stem = name.lower().rstrip("0123456789_-")
    return next((names for names in SPLIT_NAMES.values() if stem in names), (name.lower(),))
