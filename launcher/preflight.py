"""Reasons why a job could not run, found before it is submitted. Needs neither data nor model nor GPU."""

import math
import re
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

from detector.checks.problems import Problem, split_mistakes
from detector.config.schema import Config
from detector.errors import BadInput, count_of
from detector.run.files import broken_link
from launcher.clean_environment import submission_environment, unused_notes
from launcher.job import Job, Resources
from launcher.option_fields import parse_minutes
from launcher.partitions import cluster_problems
from launcher.rank_env import FIRST_PORT, PORTS
from launcher.slurm_commands import run_once

EARLY_S = 60  # Slurm checks time limits once a minute: the stop signal may be this early
TEST_TIMEOUT_S = 30


def slurm_problems(job: Job, run: Path, config: Config) -> list[Problem]:
    """Returns every reason why the job could not run on this Slurm cluster; see also `run_folder_problems`."""
    return [*job_problems(job, run, config),
            *cluster_problems(job.resources, cores_per_process(job.resources, config))]


def job_problems(job: Job, run: Path, config: Config) -> list[Problem]:
    """Returns the reasons that have nothing to do with the cluster."""
    return [*shared_folder_problems(run, job.resources.shared), *resource_problems(job, config),
            *setup_problems(job.resources.setup), *backbone_problems(config)]


def setup_problems(lines: tuple[str, ...]) -> list[Problem]:
    """Checks that the set-up lines are valid bash together."""
    if not lines or not shutil.which("bash"):
        return []
    errors = subprocess.run(["bash", "-n"], input="\n".join(lines) + "\n", capture_output=True, text=True).stderr
    cause = "; ".join(line.removeprefix("bash: ") for line in errors.splitlines())
    return [Problem("setup", f"bash cannot read it: {cause}", "Correct --setup, or setup: in the cluster file")
            ] if errors else []


def rehearse_script(script: str) -> tuple[list[Problem], list[str]]:
    """Asks `sbatch --test-only` whether it would take a script. Returns its refusal, or its estimate of the start."""
    with tempfile.NamedTemporaryFile("w", suffix=".sbatch", encoding="utf-8") as file:
        file.write(script)
        file.flush()
        status, _, message = run_once(("sbatch", "--test-only", file.name), submission_environment(), TEST_TIMEOUT_S)
    message = message.replace("allocation failure: ", "").removeprefix("sbatch: ")
    if status:
        return [Problem("sbatch --test-only", message, "Change the option that it names. Where it tells of resources "
                        "that are down for now, the job can be submitted all the same")], []
    return [], [f"sbatch --test-only: {re.sub(r'^Job [0-9]+ to start', 'the job would start', message)}"]


def shared_folder_problems(run: Path, shared: str) -> list[Problem]:
    """Checks that the run folder lies below the folder that all nodes can see."""
    if shared and not Path(shared).is_dir():
        return [Problem(f"shared={shared}", "there is no such folder", "Name a folder that all nodes can see")]
    if shared and Path(shared).resolve() not in [run.resolve(), *run.resolve().parents]:
        return [Problem(f"run folder {run}", f"it does not lie below {shared}, which all nodes can see",
                        f"Set run.folder={shared}/runs")]
    return []


def backbone_problems(config: Config) -> list[Problem]:
    """Checks the options of the model that depend on the backbone."""
    from detector.model.backbones import check_backbone  # here: imports torch, which takes seconds
    try:
        check_backbone(config.model)
        return []
    except BadInput as error:
        mistakes = split_mistakes(error)[1] or [str(error).removeprefix(f"model.backbone={config.model.backbone}: ")]
        parts = [mistake.partition(": ") for mistake in mistakes]
        return [Problem(subject, cause, "Change one of the two options") for subject, _, cause in parts]


def run_folder_problems(run: Path) -> list[Problem]:
    """Checks that the run folder, or its nearest parent that exists, can be written."""
    if link := broken_link(run):
        cause, _, remedy = link.partition(". ")
        return [Problem(f"run folder {run}", cause, f"{remedy}, or set run.folder")]
    existing = next(parent for parent in (run, *run.parents) if parent.exists())
    try:
        with tempfile.NamedTemporaryFile(dir=existing, prefix=".fleet-rcnn-"):
            return []
    except OSError as error:
        return [Problem(f"run folder {run}", f"cannot write below {existing}: {error.strerror}",
                        "Set run.folder to a shared folder with write permission")]


def cores_per_process(resources: Resources, config: Config) -> int:
    """Returns the CPU cores of each process: as requested, or one for each loader worker and one more."""
    return resources.cores or config.run.num_workers + 1


def resource_problems(job: Job, config: Config) -> list[Problem]:
    """Checks the resources against the config and against each other, independent of the cluster."""
    resources, problems = job.resources, []
    processes = resources.processes_per_node
    shortest_minutes = min(resources.time_limit_minutes, stated_minutes(resources, "--time-min"))
    if 60 * shortest_minutes <= resources.notice_s + EARLY_S:
        problems.append(Problem(
            f"hours={shortest_minutes / 60:.3g}", "too little time: the stop signal comes "
            f"{resources.notice_s} s before the limit, and up to {EARLY_S} s early, so that no time is left",
            "Request more hours, or set a smaller notice_s"))
    if job.verb == "train" and 0 < config.batch.size < resources.world_size:
        problems.append(Problem(
            f"batch.size={config.batch.size}", f"fewer images than the {resources.world_size} processes",
            "Request fewer processes, or set a larger batch.size"))
    if resources.cores and resources.cores < config.run.num_workers:
        problems.append(Problem(
            f"cores={resources.cores}", f"fewer than the {config.run.num_workers} workers of each process",
            f"Request {config.run.num_workers + 1} cores, or set a smaller run.num_workers"))
    if config.run.device == "cuda" and not resources.gpus:
        problems.append(Problem("gpus=0", "run.device=cuda needs one GPU for each process",
                                "Request GPUs, or set run.device"))
    if resources.gpus and processes > resources.gpus and config.run.device != "cpu":
        problems.append(Problem(f"processes={resources.processes}", f"more than the {resources.gpus} GPUs of a node",
                                "Request as many processes as GPUs, or set run.device=cpu"))
    return problems


def stated_minutes(resources: Resources, option: str) -> float:
    """Returns the time in an option of sbatch such as --time-min; infinite without it."""
    values = [text.partition("=")[2] for text in resources.sbatch if text.startswith(f"{option}=")]
    return parse_minutes(values[-1]) if values else math.inf


def slurm_notes(resources: Resources) -> list[str]:
    """Returns sentences about the size of the job and its MASTER_PORT."""
    minutes = resources.time_limit_minutes
    notes = [", ".join([count_of(resources.nodes, "node"),
                        count_of(resources.processes_per_node, "process", "processes") + " on each",
                        "no time limit" if math.isinf(minutes) else count_of(int(minutes), "minute")]),
             f"rendezvous on the first node, port {FIRST_PORT} + job id modulo {PORTS}", *unused_notes()]
    ports = Path("/proc/sys/net/ipv4/ip_local_port_range")
    if ports.exists() and int(ports.read_text().split()[0]) < FIRST_PORT + PORTS:
        notes.append("this machine uses the same ports for outgoing connections (net.ipv4.ip_local_port_range). If the "
                     "port of a job is in use, the job ends with an error that says so")
    return notes


def loopback_problems() -> list[Problem]:
    """Checks that processes of this machine can connect to each other."""
    try:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
        return []
    except OSError as error:
        return [Problem("port", f"no port can be opened on the loopback interface: {error.strerror}",
                        "Allow connections on 127.0.0.1, which the processes of a run need")]
