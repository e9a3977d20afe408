"""ONNX: float or Q/DQ, for onnxruntime and others."""
