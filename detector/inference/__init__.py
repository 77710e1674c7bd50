"""A trained detector at work: prediction, export to other formats, latency."""
