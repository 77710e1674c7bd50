"""A trained detector: prediction, export, latency."""
