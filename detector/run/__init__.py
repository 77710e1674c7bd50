"""The run folder as files. Importing these modules does not import torch."""
