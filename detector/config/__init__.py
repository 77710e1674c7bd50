"""Options: what they are (schema) and how a user says them (load). Imports no tensor library."""
