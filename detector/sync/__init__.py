"""Replays the record of a run into an experiment tracker: MLflow or Weights & Biases. Imports no torch."""
