"""Environments of submissions and containers: what they keep, and what they leave out."""

from launcher.clean_environment import container_environment, site_defaults, submission_environment, unused_notes

OUTER = {"SLURM_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3", "SLURM_RESTART_COUNT": "1", "SLURM_MEM_PER_CPU": "200", "SLURMD_NODENAME": "n1",
         "SRUN_DEBUG": "3", "SALLOC_PARTITION": "x", "SBATCH_PARTITION": "gpu", "SBATCH_EXPORT": "NONE", "PMI_RANK": "0",
         "PMIX_RANK": "0", "SUBMITIT_EXECUTOR": "slurm", "RANK": "3", "WORLD_SIZE": "8", "MASTER_ADDR": "n9", "PET_NODE_RANK": "1",
         "TORCHELASTIC_RUN_ID": "none"}
KEPT = {"SLURM_CONF": "/site/slurm.conf", "SLURM_CLUSTERS": "b", "HOME": "/home/me", "PATH": "/bin", "OMP_NUM_THREADS": "4",
        "NCCL_DEBUG": "INFO", "RANKING": "x"}


def test_a_submission_has_nothing_of_an_outer_job_or_of_torchrun_but_finds_the_cluster():
    assert submission_environment({**OUTER, **KEPT}) == KEPT


def test_what_a_site_states_by_variables_of_sbatch_is_a_default():
    assert site_defaults({**OUTER, "SBATCH_ACCOUNT": "vision", "SBATCH_QOS": "", "SBATCH_NO_REQUEUE": "1"}) == {
        "account": "vision", "partition": "gpu", "no-requeue": ""}
    assert site_defaults({}) == {}


def test_a_container_gets_the_variables_of_the_job_and_of_libraries_but_no_paths_of_the_host():
    needed = {"SLURM_PROCID": "1", "SLURM_CONF": "/c", "MASTER_ADDR": "n1", "PET_NODE_RANK": "1", "OMP_NUM_THREADS": "4",
              "CUDA_VISIBLE_DEVICES": "0,1", "NCCL_SOCKET_IFNAME": "ib0", "TORCH_HOME": "/t", "XDG_CACHE_HOME": "/c", "https_proxy": "p"}
    assert container_environment({**needed, "PATH": "/bin", "CUDA_HOME": "/usr/local/cuda", "LD_LIBRARY_PATH": "/lib"}) == needed


def test_variables_of_sbatch_that_are_not_used_are_named():
    assert unused_notes({"SBATCH_GRES": "gpu:2", "SBATCH_ACCOUNT": "vision"})[0].startswith("SBATCH_GRES of this shell is not used")
    assert unused_notes({"SBATCH_ACCOUNT": "vision", "SLURM_CONF": "x"}) == []
