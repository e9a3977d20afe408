"""The order of things: read, optimize, calibrate, quantize, write, verify.

Only this package knows frontends, passes, calibration and backends together.
"""
