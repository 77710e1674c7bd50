"""Fixtures of the tests of the launcher."""

from fake_runs import slurm  # noqa: F401
