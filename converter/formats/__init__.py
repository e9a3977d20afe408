"""Byte and text formats, read and written: bytes to records, no graphs."""
