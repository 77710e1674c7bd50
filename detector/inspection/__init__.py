"""Inspection of a data set, and of anchors over it, before training."""
