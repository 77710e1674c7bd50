"""What a run does: data, model, training, evaluation. Knows nothing of Slurm."""
