"""Where a job runs: this machine, submitit, sbatch."""
