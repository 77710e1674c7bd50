"""One reader for each layout of annotations."""
