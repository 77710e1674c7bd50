"""Drawn boxes, validation images, thumbnails and TensorBoard curves."""
