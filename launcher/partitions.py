"""The partitions of a Slurm cluster, as sinfo and scontrol tell them, and why none of them could start a job."""

import math
import re
import socket
from dataclasses import dataclass, replace

from detector.checks.problems import Problem
from detector.errors import BadInput
from launcher.job import Resources
from launcher.option_fields import parse_minutes
from launcher.slurm_commands import has_slurm, parse_record, slurm

SINFO_FORMAT = "%R|%P|%a|%l|%D|%c|%G"  # name, name with * for the default, up, time limit, nodes, cores, GPUs
SHOW_PARTITIONS = ("scontrol", "-a", "-o", "show", "partition")
COUNT_SUFFIXES = {"": 1, "K": 1024, "M": 1024 ** 2}  # of a count, as sinfo writes 1024 cores: 1K


@dataclass(frozen=True)
class Partition:
    """One line of sinfo: the nodes of one kind in a partition."""

    name: str
    is_default: bool
    is_up: bool
    time_limit_minutes: float  # infinite without a limit
    nodes: int
    cores: int                 # of the largest node
    gpus: int                  # of the node with most GPUs
    gpu_types: tuple[str, ...] = ()  # that sinfo names, such as a100
    hidden_nodes: int = 0      # of the partition, which sinfo does not show


def cluster_problems(resources: Resources, cores: int) -> list[Problem]:
    """Returns the reasons why this cluster could not start a job with `cores` CPU cores per process."""
    if not has_slurm():
        return [Problem("sbatch", f"there is none on {socket.gethostname()}",
                        "Use a login node of the Slurm cluster, or start a test cluster with slurm/local-cluster")]
    try:
        partitions = read_partitions()
        problems = partition_problems(resources, cores, partitions)
        if problems:
            partitions = with_hidden_nodes(partitions, slurm(*SHOW_PARTITIONS))
            problems = partition_problems(resources, cores, partitions)
        return problems
    except BadInput as error:
        return [Problem("sinfo", str(error), "Check that the Slurm controller is up (scontrol ping)")]


def read_partitions() -> list[Partition]:
    """Returns what Slurm tells about the partitions; without their nodes, where a site keeps these private."""
    try:  # --all: also hidden partitions, and those for some groups; --exact: nodes of each size, not the smallest
        return parse_partitions(slurm("sinfo", "--all", "--exact", "-h", "-o", SINFO_FORMAT))
    except BadInput as error:
        if "permission denied" not in str(error).lower():
            raise
    records = map(parse_record, slurm(*SHOW_PARTITIONS).splitlines())
    return [Partition(record["PartitionName"], record.get("Default") == "YES", record.get("State") == "UP",
                      parse_limit(record.get("MaxTime", "")), 0, 0, 0) for record in records]


def partition_problems(resources: Resources, cores: int, partitions: list[Partition]) -> list[Problem]:
    """Checks that one of the requested partitions could start the job.

    Args:
        cores: CPU cores of each process.
        partitions: the lines of sinfo; a partition has one for each kind of node.

    Returns:
        nothing if one of the partitions can; otherwise the problems of each.
    """
    names = ", ".join(sorted({partition.name for partition in partitions}))
    requested = [name.strip() for name in resources.partition.split(",") if name.strip()]
    requested = requested or sorted({partition.name for partition in partitions if partition.is_default})
    if not requested:
        return [Problem("partition", "the cluster has no default partition", f"Name one of: {names}")]
    rows = {name: [partition for partition in partitions if partition.name == name] for name in requested}
    unknown = [Problem(f"partition={name}", "there is no such partition", f"Partitions: {names}")
               for name in requested if not rows[name]]
    problems = [problems_in_partition(resources, cores, rows[name], names) for name in requested if rows[name]]
    return unknown or ([] if not all(problems) else [problem for group in problems for problem in group])


def problems_in_partition(resources: Resources, cores: int, rows: list[Partition], names: str) -> list[Problem]:
    """Returns why a partition could never start the job.

    Args:
        rows: the lines of sinfo for this partition.
        names: of all partitions.
    """
    name, problems = rows[0].name, []
    processes, requested_cores = resources.processes_per_node, cores * resources.processes_per_node
    hidden = rows[0].hidden_nodes  # of unknown sizes
    limits = [(f"nodes={resources.nodes}", resources.nodes, hidden + sum(row.nodes for row in rows), "nodes", "")]
    limits += [] if hidden else [
        (f"gpus={resources.gpus}", resources.gpus, max(row.gpus for row in rows), "GPUs in a node", ""),
        (f"cores of a node ({processes} x {cores} = {requested_cores})", requested_cores,
         max(row.cores for row in rows), "cores in a node", " (each of run.num_workers needs a core)")]
    for subject, requested, limit, unit, reason in limits:
        if requested > limit:
            problems.append(Problem(subject, f"partition {name} has {limit} {unit}",
                                    f"Request less{reason}, or name another partition"))
    gpu_types = sorted({gpu_type for row in rows for gpu_type in row.gpu_types})
    if resources.gpus and resources.gpu_type and resources.gpu_type not in gpu_types and not hidden:
        problems.append(Problem(f"gpus={resources.gpu_type}:{resources.gpus}",
                                f"partition {name} has no GPUs of this type", "Types that sinfo names: "
                                + (", ".join(gpu_types) or "none. Request GPUs without a type")))
    if resources.time_limit_minutes > rows[0].time_limit_minutes:
        problems.append(Problem(
            f"hours={resources.hours:g}", f"partition {name} allows {rows[0].time_limit_minutes / 60:g} hours",
            "Request less: a run that reaches its limit is saved and requeued"))
    if not rows[0].is_up:
        problems.append(Problem(f"partition={name}", "it is not up", f"Name another of: {names}"))
    return problems


def parse_partitions(text: str) -> list[Partition]:
    """Parses the output of `sinfo -h -o SINFO_FORMAT`."""
    partitions = []
    for line in text.splitlines():
        name, starred_name, up, limit, nodes, cores, gres = line.split("|")
        gpus = re.findall(r"gpu(?::([^:,()]+))?:(\d+)", gres)
        partitions.append(Partition(name, starred_name.endswith("*"), up == "up", parse_limit(limit),
                                    parse_count(nodes), parse_count(cores), sum(int(count) for _, count in gpus),
                                    tuple(gpu_type for gpu_type, _ in gpus if gpu_type)))
    return partitions


def with_hidden_nodes(partitions: list[Partition], text: str) -> list[Partition]:
    """Returns the partitions with the number of nodes that sinfo does not show.

    These are nodes of a cloud that are powered down, and those of a site that keeps its nodes private (PrivateData).

    Args:
        text: the output of `scontrol -o show partition`.
    """
    records = [parse_record(line) for line in text.splitlines()]
    totals = {record["PartitionName"]: int(record["TotalNodes"]) for record in records if "TotalNodes" in record}
    shown = {name: sum(row.nodes for row in partitions if row.name == name) for name in totals}
    return [replace(row, hidden_nodes=max(0, totals.get(row.name, 0) - shown.get(row.name, 0))) for row in partitions]


def parse_count(text: str) -> int:
    """Parses a number of nodes or cores of sinfo: 64, 64+ or 1K."""
    digits, suffix = re.fullmatch(r"([\d.]+)([KM]?)\+?", text).groups()
    return int(float(digits) * COUNT_SUFFIXES[suffix])


def parse_limit(limit: str) -> float:
    """Parses a time limit of sinfo: '1-12:00:00', '30:00', 'infinite' or 'n/a'. Returns minutes."""
    try:
        return parse_minutes(limit)
    except ValueError:
        return math.inf
