"""Where a run's numbers go: console and log.txt, metrics.jsonl, TensorBoard."""
