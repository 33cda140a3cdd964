"""A step of the site's build: puts what `graphscale COMMAND --help` prints into the pages.

In: a line `<!-- help: COMMAND -->` of a page (or `<!-- help -->` for the program itself). Out: a
console block in its place. The build fails where a command has no such line on the page that has
one for the program itself.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from mkdocs.exceptions import PluginError

_PLACE = re.compile(r"^<!-- help(?:: (\w+))? -->$", re.MULTILINE)


def on_page_markdown(markdown: str, page, config, files) -> str:
    """The page with the help of commands in it."""
    places = [match[1] for match in _PLACE.finditer(markdown)]
    root = Path(config["docs_dir"]).parent
    if None in places:
        commands = re.findall(r"^    (\w+)", help_of(None, root), re.MULTILINE)
        if missing := set(commands) - set(places):
            raise PluginError(
                f"{page.file.src_uri}: add a line '<!-- help: {min(missing)} -->' and a heading"
            )
    return _PLACE.sub(lambda match: _console(match[1], root), markdown)


def help_of(command: str | None, root: Path) -> str:
    """What `graphscale [command] --help` prints on 90 columns."""
    words = [sys.executable, "-m", "graphscale", *filter(None, [command]), "--help"]
    environment = {**os.environ, "PYTHONPATH": str(root), "COLUMNS": "90"}
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise PluginError(f"{' '.join(words)} failed:\n{done.stderr}")
    return done.stdout


def _console(command: str | None, root: Path) -> str:
    line = " ".join(["graphscale", *filter(None, [command]), "--help"])
    return f"```console\n$ {line}\n{help_of(command, root).rstrip()}\n```"
