"""ONNX bundles: the float model, or Q/DQ with int32 biases, run by onnxruntime."""
