"""What would keep a job from running, found before it is queued: nothing here needs data, model or a GPU."""

import re
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path

from detector.checks.problems import Problem
from detector.config.schema import Config
from detector.errors import BadInput
from launcher.job import Job, Resources, counted
from launcher.rank_env import FIRST_PORT, PORTS
from launcher.slurm_commands import has_slurm, slurm

EARLY_S = 60  # Slurm looks at its clock once a minute, so a signal may come so much too early
SINFO = "%R|%P|%a|%l|%D|%c|%G"  # name, name with * for the default, up, time limit, nodes, cores, GPUs


@dataclass(frozen=True)
class Partition:
    name: str
    default: bool
    up: bool
    minutes: float   # time limit, infinite where there is none
    nodes: int
    cores: int       # of its largest node
    gpus: int        # of the node with most


def problems(job: Job, run: Path, config: Config) -> list[Problem]:
    """All that stands against running this job on Slurm, the empty list if nothing does. Whether the run folder can be
    written is another question, see folder_problems."""
    found = [*shared_problems(run, job.resources.shared), *size_problems(job, config)]
    if not has_slurm():
        return [*found, Problem("sbatch", f"there is none on {socket.gethostname()}", "Do this on a login node of the "
                                "cluster, or try it with slurm/local-cluster")]
    try:
        partitions = read_partitions(slurm("sinfo", "-h", "-o", SINFO))
    except BadInput as error:
        return [*found, Problem("sinfo", str(error), "Is the Slurm controller up? (scontrol ping)")]
    return [*found, *partition_problems(job.resources, cores_of(job.resources, config), partitions)]


def shared_problems(run: Path, shared: str) -> list[Problem]:
    """Does the run folder lie where all nodes see it?"""
    if shared and not Path(shared).is_dir():
        return [Problem(f"shared={shared}", "there is no such folder", "Name one that all nodes see")]
    if shared and Path(shared).resolve() not in [run.resolve(), *run.resolve().parents]:
        return [Problem(f"run folder {run}", f"it does not lie below {shared}, which all nodes see",
                        f"Set run.folder={shared}/runs")]
    return []


def folder_problems(run: Path) -> list[Problem]:
    """Can the run folder be written?"""
    above = next(parent for parent in (run, *run.parents) if parent.exists())
    try:
        with tempfile.NamedTemporaryFile(dir=above, prefix=".fleet-rcnn-"):
            return []
    except OSError as error:
        return [Problem(f"run folder {run}", f"cannot write below {above}: {error.strerror}",
                        "Set run.folder to a shared folder that you may write to")]


def cores_of(wanted: Resources, config: Config) -> int:
    """Cores of each process: one for itself and one for each of its loader workers."""
    return wanted.cores or config.run.num_workers + 1


def size_problems(job: Job, config: Config) -> list[Problem]:
    """What does not fit together, whatever the cluster."""
    wanted, found = job.resources, []
    if 60 * wanted.minutes <= wanted.notice_s + EARLY_S:
        found.append(Problem(f"hours={wanted.hours:g}", f"too little time: the stop signal comes {wanted.notice_s} s "
                             f"before the limit and maybe {EARLY_S} s early: nothing is left of it",
                             "Ask for more hours, or for a smaller notice_s"))
    if job.verb == "train" and 0 < config.batch.size < wanted.world:
        found.append(Problem(f"batch.size={config.batch.size}", f"fewer images than the {wanted.world} processes",
                             "Ask for fewer processes, or set batch.size"))
    if wanted.cores and wanted.cores < config.run.num_workers:
        found.append(Problem(f"cores={wanted.cores}", f"fewer than the {config.run.num_workers} workers of each process",
                             f"Ask for {config.run.num_workers + 1}, or set run.num_workers"))
    if config.run.device == "cuda" and not wanted.gpus:
        found.append(Problem("gpus=0", "run.device=cuda needs one for each process", "Ask for gpus, or set run.device"))
    if wanted.gpus and wanted.per_node > wanted.gpus and config.run.device != "cpu":
        found.append(Problem(f"processes={wanted.processes}", f"more than the {wanted.gpus} GPUs of a node",
                             "Ask for as many processes as GPUs, or set run.device=cpu"))
    return found


def partition_problems(wanted: Resources, cores: int, partitions: list[Partition]) -> list[Problem]:
    """Would the partition ever start it?"""
    fitting = [one for one in partitions if one.name == wanted.partition or not wanted.partition and one.default]
    names = ", ".join(sorted({one.name for one in partitions}))
    if not fitting and wanted.partition:
        return [Problem(f"partition={wanted.partition}", "there is no such partition", f"There are: {names}")]
    if not fitting:
        return [Problem("partition", "the cluster has no default one", f"Name one of: {names}")]
    name, found = fitting[0].name, []
    limits = [("nodes", wanted.nodes, sum(one.nodes for one in fitting), "nodes"),
              ("gpus", wanted.gpus, max(one.gpus for one in fitting), "GPUs in a node"),
              ("cores", cores * wanted.per_node, max(one.cores for one in fitting), "cores in a node")]
    for key, asked, there, what in limits:
        if asked > there:
            found.append(Problem(f"{key}={asked}", f"partition {name} has {there} {what}",
                                 "Ask for less (run.num_workers take a core each), or name another partition"))
    if wanted.minutes > fitting[0].minutes:
        found.append(Problem(f"hours={wanted.hours:g}", f"partition {name} allows {fitting[0].minutes / 60:g} hours",
                             "Ask for less: a run that reaches its limit is saved and queued again"))
    if not fitting[0].up:
        found.append(Problem(f"partition={name}", "it is not up", f"Name another of: {names}"))
    return found


def read_partitions(text: str) -> list[Partition]:
    """The lines of `sinfo -o SINFO`: a partition has one for each kind of node."""
    found = []
    for line in text.splitlines():
        name, starred, up, limit, nodes, cores, gres = line.split("|")
        gpus = sum(int(count) for count in re.findall(r"gpu(?::[^:,()]+)?:(\d+)", gres))
        found.append(Partition(name, starred.endswith("*"), up == "up", minutes_of(limit), int(nodes),
                               int(cores.rstrip("+")), gpus))
    return found


def minutes_of(limit: str) -> float:
    """'1-12:00:00', '30:00' or 'infinite', as sinfo writes them."""
    found = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", limit)
    if found is None:
        return float("inf")
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return 1440 * days + 60 * hours + minutes + seconds / 60


def notes(wanted: Resources) -> list[str]:
    """What is no mistake, but good to know."""
    said = [", ".join([counted(wanted.nodes, "node"), counted(wanted.per_node, "process", "processes") + " on each",
                       counted(wanted.minutes, "minute")]),
            f"all meet on the first node at port {FIRST_PORT} + job number modulo {PORTS}"]
    low = Path("/proc/sys/net/ipv4/ip_local_port_range")
    if low.exists() and int(low.read_text().split()[0]) < FIRST_PORT + PORTS:
        said.append("this machine gives such ports to outgoing connections as well (net.ipv4.ip_local_port_range), so "
                    "one may be taken; the run then says so")
    return said


def local_problems() -> list[Problem]:
    """What stands against several processes here."""
    try:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
        return []
    except OSError as error:
        return [Problem("port", f"none can be opened on the loopback: {error.strerror}", "Processes meet there")]
