"""ncnn: param, bin and calibration table."""
