"""report.html: results of an evaluation, or predictions, as one self-contained page."""
