"""report.html: the results of an evaluation, or predictions, as one self-contained page."""
