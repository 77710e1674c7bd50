"""Progress of the long stages of a check, shown on a terminal only."""

from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


def show_progress(items: Iterable[T], total: int, description: str, unit: str) -> Iterable[T]:
    """Returns the items; a bar shows how many of them have been taken."""
    return tqdm(items, description, total, unit=unit, leave=False, disable=None)


def show_stage(description: str) -> tqdm:
    """Returns a context manager that names a stage as long as it lasts."""
    return tqdm(desc=description, bar_format="{desc} ...", leave=False, disable=None)
