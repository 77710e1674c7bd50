"""Evaluation: all ranks predict, rank 0 scores."""
