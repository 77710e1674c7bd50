"""Where a run runs: this machine, torchrun, Slurm. Never touches a tensor."""
