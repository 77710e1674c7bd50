"""Evaluation: every rank predicts its share of the images, rank 0 scores."""
