"""Ranks working together: process group, collectives, DistributedDataParallel, stop signals."""
