"""Threshold strategies: statistics of a tensor in, the range to represent out.

Each module holds one published definition as pure functions on numbers. `table` lists them.
"""
