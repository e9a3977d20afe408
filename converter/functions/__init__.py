"""Model-local functions in domain `qconvert`: what standard ONNX has no operator for."""
