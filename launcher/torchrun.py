"""torchrun on this machine, as a command line."""

import sys

from launcher.job import CODE, Job

SIGNALS = "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1,SIGUSR2"  # by default torchrun dies of the last two
SHUTDOWN_S = 600  # by default it kills, 30 s after a signal, what is still saving


def torchrun_command(job: Job) -> list[str]:
    """torchrun itself ends with 1 for whatever its processes end with, but for 0."""
    snapshot = (CODE / "__main__.py").is_file()
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={job.resources.per_node}",
            f"--signals-to-handle={SIGNALS}", *([str(CODE)] if snapshot else ["-m", "detector"]), job.verb, *job.arguments]


def torchrun_environment(environ: dict[str, str]) -> dict[str, str]:
    return {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(SHUTDOWN_S), **environ}
