"""The command line: one file per command, which parses, calls and shows."""

from graphscale.cli.command_line import main

__all__ = ["main"]
