"""Metrics: detections and ground truth to named numbers."""
