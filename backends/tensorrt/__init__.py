"""The TensorRT target: Q/DQ ONNX, and a calibration cache for versions that still read one."""
