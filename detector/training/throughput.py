"""Throughput of the steps between two logged steps."""

import time

from detector.data.dataset import unreadable_messages
from detector.data.synced_batches import Fetched


class ThroughputMeter:
    """Collects the time spent waiting for data, and unreadable images, since the last logged step."""

    def __init__(self, step: int):
        self.first_step, self.started_at = step, time.monotonic()
        self.wait_s, self.unreadable = 0.0, []

    def add(self, fetched: Fetched) -> None:
        self.wait_s += fetched.wait_s
        for _, targets in fetched.batches:
            self.unreadable += unreadable_messages(targets)

    def images_per_s(self, step: int, global_batch: int, elapsed_s: float) -> float:
        return (step - self.first_step) * global_batch / elapsed_s
