"""Checks of a run before it starts: config, data set, machine, weights and a trial step."""
