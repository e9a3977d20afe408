"""The order of a conversion: read, optimize, calibrate, quantize, write, verify."""
