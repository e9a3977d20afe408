"""ncnn: param and bin, read back."""
