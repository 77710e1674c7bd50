"""Environments without what an outer job, an outer launcher or a shell has left in them.

`submission_environment` is what sbatch is started with, `container_environment` what the processes of a container need
although the container may start with a clean environment, and `site_defaults` what a site says to sbatch by SBATCH_*.
"""

import os
from fnmatch import fnmatchcase
from typing import Mapping

# Variables that torchrun sets, or takes in place of its options (PET_*).
TORCHRUN_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT",
                      "GROUP_RANK", "GROUP_WORLD_SIZE", "ROLE_RANK", "ROLE_WORLD_SIZE", "ROLE_NAME",
                      "TORCHELASTIC_*", "PET_*")
# Variables that describe a job and its steps, or that stand for options of sbatch and srun.
JOB_VARIABLES = ("SLURM_*", "SLURMD_*", "SBATCH_*", "SRUN_*", "SALLOC_*", "PMI*", "SUBMITIT_*")
# Variables that only say where Slurm's controller is and who asks.
CLUSTER_VARIABLES = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS", "SLURM_JWT")
# Variables by which a site or a user states an option of sbatch for all jobs: whom to charge, and where they run.
SITE_OPTIONS = {"SBATCH_ACCOUNT": "account", "SBATCH_PARTITION": "partition", "SBATCH_QOS": "qos",
                "SBATCH_RESERVATION": "reservation", "SBATCH_CONSTRAINT": "constraint", "SBATCH_CLUSTERS": "clusters",
                "SBATCH_TIMELIMIT": "time", "SBATCH_MEM_PER_CPU": "mem-per-cpu", "SBATCH_MEM_PER_NODE": "mem",
                "SBATCH_WCKEY": "wckey", "SBATCH_NO_REQUEUE": "no-requeue"}
FLAGS = ("no-requeue",)  # options of SITE_OPTIONS without a value
# Variables that processes in a container need: of the job, of libraries, and of the user's folders.
CONTAINER_VARIABLES = (*TORCHRUN_VARIABLES, "SLURM_*", "SUBMITIT_*", "CUDA_*", "NVIDIA_*", "ROCR_*", "HIP_*", "OMP_*",
                       "KMP_*", "MKL_*", "NCCL_*", "RCCL_*", "GLOO_*", "UCX_*", "FI_*", "TORCH_*", "TORCHINDUCTOR_*",
                       "PYTORCH_*", "TRITON_*", "FLEET_*", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME",
                       "HF_*", "*_proxy", "*_PROXY")
# Variables that a step of srun reads as its options, and that a job may get from the shell that submitted it. Without
# them, a step gets all memory and GPUs of its job.
STEP_OPTIONS = ("SRUN_*", "PMI*", "SLURM_CPU_BIND*", "SLURM_MEM_PER_CPU", "SLURM_MEM_PER_GPU", "SLURM_MEM_PER_NODE",
                "SLURM_GPUS", "SLURM_GPUS_PER_NODE", "SLURM_GPUS_PER_TASK", "SLURM_GPUS_PER_SOCKET")
HOST_PATHS = ("CUDA_HOME", "CUDA_PATH", "CUDA_ROOT")  # folders that a container has elsewhere


def submission_environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Returns the environment of sbatch: a submission from inside another job, or below torchrun, is one from outside.

    sbatch hands its environment on to the job, whose commands would take the variables of the outer job for their own.
    SBATCH_* is left out, because sbatch prefers it to the options of a script; see `site_defaults`.
    """
    return {name: value for name, value in environ.items()
            if matches(name, CLUSTER_VARIABLES) or not matches(name, (*JOB_VARIABLES, *TORCHRUN_VARIABLES))}


def site_defaults(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Returns the options of sbatch that SBATCH_* states, {"account": "vision"}; a flag has the value "".

    They are defaults: the command line and the cluster file of the user come before them.
    """
    return {option: "" if option in FLAGS else environ[name] for name, option in SITE_OPTIONS.items()
            if environ.get(name)}


def unused_notes(environ: Mapping[str, str] = os.environ) -> list[str]:
    """Returns a sentence about the variables that would state options of sbatch and are not used; none without any."""
    unused = sorted(name for name in environ if matches(name, ("SBATCH_*",)) and name not in SITE_OPTIONS)
    if not unused:
        return []
    return [f"{', '.join(unused)} of this shell {'is' if len(unused) == 1 else 'are'} not used: options of sbatch are "
            "stated by --sbatch, or by sbatch: in the cluster file"]


def foreign_variables(is_array: bool) -> list[str]:
    """Returns the names for `unset` in a batch script: a script that is submitted by hand may get them from anywhere.

    Args:
        is_array: the script is one of a job array, so that Slurm sets SLURM_ARRAY_*.
    """
    names = (*TORCHRUN_VARIABLES, *STEP_OPTIONS, *(() if is_array else ("SLURM_ARRAY_*",)))
    return [f"${{!{name[:-1]}@}}" if name.endswith("*") else name for name in names]


def container_environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Returns the variables that are passed into a container explicitly, as arguments of env."""
    return {name: value for name, value in environ.items()
            if matches(name, CONTAINER_VARIABLES) and name not in HOST_PATHS}


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    """Returns whether a name matches one of the patterns, such as SLURM_*."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)
