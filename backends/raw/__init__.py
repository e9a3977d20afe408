"""Integer programs for FPGA and ASIC, with the vectors that prove an implementation right."""
