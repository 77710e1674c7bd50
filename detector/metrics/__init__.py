"""Detections and ground truth in, named numbers out."""
