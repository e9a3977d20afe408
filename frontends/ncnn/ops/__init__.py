"""ncnn layers to ONNX operators, one family a file."""
