"""Public data sets: catalog, download, verification, extraction."""
