"""The command `graphscale`.

`command_line.py` runs it; each sub-command has a file of its own, which parses the options, calls
the library and shows the result.
"""

from graphscale.cli.command_line import main

__all__ = ["main"]
