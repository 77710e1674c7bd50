"""Pictures with boxes, thumbnails, and TensorBoard curves."""
