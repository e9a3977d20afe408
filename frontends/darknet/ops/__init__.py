"""Darknet sections to ONNX operators, one family a file."""
