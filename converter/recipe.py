"""The effective configuration of a run, and its TOML form."""
