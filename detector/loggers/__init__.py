"""Where a run's numbers go: console and log.txt, metrics.jsonl, TensorBoard.

Another logger is one file with a class like those below (see protocol.py) and one entry in LOGGERS.
"""

from pathlib import Path
from typing import Callable

from detector.loggers.console import ConsoleLogger
from detector.loggers.jsonl import JsonlLogger
from detector.loggers.protocol import Logger
from detector.loggers.tensorboard import TensorBoardLogger

# The order of writing: a line that is printed is in metrics.jsonl already.
LOGGERS: dict[str, Callable[[Path, int, int], Logger]] = {
    "jsonl": JsonlLogger,
    "tensorboard": TensorBoardLogger,
    "console": ConsoleLogger,
}
