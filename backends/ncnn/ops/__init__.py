"""ONNX operators to ncnn layers, one family a file."""
