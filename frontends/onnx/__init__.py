"""ONNX: any opset from 7 on."""
