"""Weights of other programs: files, names of tensors, and loading them into the model."""
