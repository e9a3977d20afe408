"""Runs an artifact on its real runtime and says what it measured."""
