"""What a run does: data, model, training, evaluation. Knows nothing of Slurm."""


def load(run: str, checkpoint: str = "best", device: str = "auto"):
    """A run's detector, to be called with images: `load("runs/bccd")("photo.jpg", score=0.5)`; see detector/inference/predictor.py.

    checkpoint: best, last, or a file; device: auto, cpu or cuda. Raises detector.errors.BadInput.
    """
    from detector.inference.predictor import load_run  # here, so that importing the package does not import torch
    return load_run(str(run), checkpoint, device)
