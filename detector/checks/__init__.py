"""What can go wrong with a run, looked for before it runs."""
