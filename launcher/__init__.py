"""Starts runs on this machine, under torchrun or on Slurm. Imports no torch at module level."""
