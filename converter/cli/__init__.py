"""The command line: typer commands that print and exit; they decide nothing."""
