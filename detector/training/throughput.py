"""Throughput of the steps, and the unreadable images among theirs."""

import time

from detector.data.dataset import unreadable_messages
from detector.data.synced_batches import Fetched


class ThroughputMeter:
    """Measures the steps since the last restart; collects unreadable images until they are taken."""

    def __init__(self, step: int):
        self.unreadable: list[str] = []
        self.restart(step)

    def restart(self, step: int) -> None:
        """Starts to measure again; `step` is the number of completed steps."""
        self.first_step, self.started_at, self.wait_s = step, time.monotonic(), 0.0

    def take_unreadable(self) -> list[str]:
        """Returns a message for each unreadable image since the last call."""
        messages, self.unreadable = self.unreadable, []
        return messages

    def add(self, fetched: Fetched) -> None:
        self.wait_s += fetched.wait_s
        for _, targets in fetched.batches:
            self.unreadable += unreadable_messages(targets)

    def images_per_s(self, step: int, global_batch: int, elapsed_s: float) -> float:
        return (step - self.first_step) * global_batch / elapsed_s
