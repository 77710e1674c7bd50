"""torchrun on this machine."""

import os
import sys
import time

from detector.errors import FAILED, OK, STOPPED
from launcher.job import CODE, Job, program
from launcher.local import run_command
from launcher.record import run_of, status_of

SIGNALS = "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1,SIGUSR2"  # by default torchrun dies of the last two
SHUTDOWN_S = 600  # by default it kills, 30 s after a signal, what is still saving


def torchrun_command(job: Job) -> list[str]:
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={job.resources.per_node}",
            f"--signals-to-handle={SIGNALS}", *program(CODE, "detector"), job.verb, *job.arguments]


def run_torchrun(job: Job) -> int:
    """The exit status of the job. torchrun itself gives 1 for all but 0, so a training is asked what became of it."""
    started_at = time.time()
    status = run_command(torchrun_command(job), {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(SHUTDOWN_S), **os.environ})
    if status == OK or job.verb != "train":
        return status
    said = status_of(run_of(job.verb, job.arguments)[0])
    return STOPPED if said.get("state") == "stopped" and said["at"] >= started_at else FAILED
