"""Darknet: cfg and weights."""
