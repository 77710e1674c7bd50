"""Options of sbatch that mean the same as a field of Resources, in the formats of Slurm: --time=1-12:00:00 -> hours.

A statement is a pair (key, value): the key is the name of a field of Resources, or that of another option with dashes.
"""

import math
import re
from collections.abc import Callable

STOP_SIGNALS = {"TERM": 15, "INT": 2, "USR1": 10, "USR2": 12}  # after which all ranks save
SIGNAL_TIME_S = 60  # of --signal without a time
MEMORY_UNITS_GIB = {"K": 1 / 1024 ** 2, "M": 1 / 1024, "G": 1, "T": 1024}
UNLIMITED = ("UNLIMITED", "INFINITE", "-1", "0")
# Keys that cannot be stated together: a later layer that states one removes the others.
EXCLUSIVE_KEYS = (("memory_gib", "memory_per_core_gib", "--mem", "--mem-per-gpu"), ("--requeue", "--no-requeue"),
                  ("notice_s", "--signal"), ("hours", "--time"), ("gpus", "--gpus"), ("cores", "--cpus-per-gpu"),
                  ("--exclusive", "--oversubscribe"))


def statements_of(name: str, value: str) -> list[tuple[str, object]]:
    """Returns the statements that an option of sbatch makes.

    Raises:
        ValueError: says which values are allowed.
    """
    return STATEMENTS[name](value) if name in STATEMENTS else [(f"--{name}", value)]


def state_time(text: str) -> list[tuple[str, object]]:
    minutes = parse_minutes(text)
    return [("--time", "UNLIMITED")] if math.isinf(minutes) else [("hours", minutes / 60)]


def state_nodes(text: str) -> list[tuple[str, object]]:
    low, _, high = text.partition("-")
    if not low.isdecimal() or high not in ("", low) or int(low) < 1:
        raise ValueError("one whole number, because the number of processes must be known at submission")
    return [("nodes", int(low))]


def state_cores(text: str) -> list[tuple[str, object]]:
    return [("cores", parse_count(text))]


def state_gpus_of_node(text: str) -> list[tuple[str, object]]:
    gpus, gpu_type = parse_gpus(text)
    return [("gpus", gpus), *([("gpu_type", gpu_type)] if gpu_type else [])]


def state_gpus_of_job(text: str) -> list[tuple[str, object]]:
    gpus, gpu_type = parse_gpus(text)
    return [("--gpus", gpus), *([("gpu_type", gpu_type)] if gpu_type else [])]


def state_gres(text: str) -> list[tuple[str, object]]:
    """The GPUs among generic resources become those of a node; the others stay: gpu:a100:2,lscratch:100."""
    parts = text.removeprefix("gres:").split(",")
    gpus = [part for part in parts if re.match(r"(gres[:/])?gpu(:|$)", part)]
    others = [part for part in parts if part not in gpus]
    if len(gpus) > 1:
        raise ValueError("one type of GPU for all processes")
    statements = state_gpus_of_node(re.sub(r"^(gres[:/])?gpu:?", "", gpus[0]) or "1") if gpus else []
    return [*statements, *([("--gres", ",".join(others))] if others else [])]


def state_memory(text: str) -> list[tuple[str, object]]:
    gib = parse_memory_gib(text)
    return [("memory_gib", gib)] if gib else [("--mem", "0")]  # all the memory of a node


def state_signal(text: str) -> list[tuple[str, object]]:
    """The processes get the signal in any case, because the batch shell (B:) has nothing to save."""
    name, seconds = parse_signal(text)
    reservation = "R:" if re.match("B?R", text.upper()) else ""
    return [("--signal", f"{reservation}{name}@{seconds}")]


def state_distribution(text: str) -> list[tuple[str, object]]:
    if text.startswith("arbitrary"):
        raise ValueError("block, cyclic or plane=N, because the first process must be on the first node")
    return [("--distribution", text)]


STATEMENTS: dict[str, Callable[[str], list[tuple[str, object]]]] = {
    "time": state_time, "nodes": state_nodes, "cpus-per-task": state_cores, "gpus-per-node": state_gpus_of_node,
    "gpus": state_gpus_of_job, "gres": state_gres, "mem": state_memory, "signal": state_signal,
    "distribution": state_distribution,
    "cpus-per-gpu": lambda text: [("--cpus-per-gpu", parse_count(text))],
    "mem-per-cpu": lambda text: [("memory_per_core_gib", parse_memory_gib(text))],
    "mem-per-gpu": lambda text: [("--mem-per-gpu", text)] if parse_memory_gib(text) else [],
    "partition": lambda text: [("partition", text)], "account": lambda text: [("account", text)],
    "constraint": lambda text: [("constraint", text)],
    "time-min": lambda text: [("--time-min", text)] if parse_minutes(text) else [],
}


def parse_count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise ValueError("a whole number of at least 1")
    return int(text)


def parse_minutes(text: str) -> float:
    """Parses a time of Slurm: minutes, MM:SS, HH:MM:SS, D-HH, D-HH:MM, D-HH:MM:SS; infinite for UNLIMITED and 0."""
    if text.upper() in UNLIMITED:
        return math.inf
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text)
    if match is None:
        raise ValueError("minutes, MM:SS, HH:MM:SS, D-HH, D-HH:MM, D-HH:MM:SS or UNLIMITED")
    days, first, second, third = (int(part or 0) for part in match.groups())
    if match[1]:
        hours, minutes, seconds = first, second, third
    else:
        hours, minutes, seconds = (first, second, third) if match[4] else (0, first, second)
    return 1440 * days + 60 * hours + minutes + seconds / 60 or math.inf


def parse_memory_gib(text: str) -> float:
    """Parses a memory size of Slurm: 200G, 500M, 1T, or a number of MiB."""
    match = re.fullmatch(r"(\d+)([KMGT])?B?", text.upper())
    if match is None:
        raise ValueError("a whole number with K, M, G or T, such as 200G; without a unit, MiB")
    return int(match[1]) * MEMORY_UNITS_GIB[match[2] or "M"]


def format_memory(gib: float) -> str:
    """Returns a memory size as Slurm takes it: 200G, or 1536M."""
    return f"{gib:.0f}G" if gib == int(gib) else f"{max(1, round(1024 * gib))}M"


def parse_gpus(text: str) -> tuple[int, str]:
    """Parses a number of GPUs with or without a type: 4 -> (4, ""), a100:4 -> (4, "a100"), a100 -> (1, "a100")."""
    match = re.fullmatch(r"(\d+)|([^\s:,()=]+)(?::(\d+))?", text)
    if match is None:
        raise ValueError("a number, or one type and a number, such as a100:4")
    return int(match[1] or match[3] or 1), match[2] or ""


def parse_signal(text: str) -> tuple[str, int]:
    """Parses [[R][B]:]SIGNAL[@SECONDS]; returns the name of the signal, and the seconds before the time limit."""
    match = re.fullmatch(r"(?:([RB]{1,2}):)?(?:SIG)?(\w+)(?:@(\d+))?", text.upper())
    numbers = {str(number): name for name, number in STOP_SIGNALS.items()}
    name = numbers.get(match[2], match[2]) if match else ""
    if name not in STOP_SIGNALS:
        raise ValueError(f"one of {', '.join(STOP_SIGNALS)}, after which all processes save, with the seconds before "
                         "the time limit, such as USR1@300")
    return name, int(match[3] or SIGNAL_TIME_S)
