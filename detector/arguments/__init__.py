"""The verbs of the command line and their arguments, declared without torch; one file for each group of verbs."""
