"""Weights from elsewhere: read files of any layout, translate their names, fill a model and report the result."""
