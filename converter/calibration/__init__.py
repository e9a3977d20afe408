"""Calibration: a float model and images in, encodings out."""
