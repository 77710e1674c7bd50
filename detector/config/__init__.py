"""The options of a config: what exists (schema), how it is read (load), and old names (aliases). Imports no torch."""
