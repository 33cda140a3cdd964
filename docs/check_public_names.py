"""A step of the site's build: it fails where a public name is missing from the API pages.

In: the `__all__` lists of graphscale's public packages, their docstrings, and the pages under
docs/reference with lines `::: graphscale.name`. Out: nothing, or an error of the build that names
what to document. Everything is read as text: neither torch nor the kernel library is needed.
"""

from __future__ import annotations

import re
from pathlib import Path

import griffe
from mkdocs.exceptions import PluginError

# Packages whose `__all__` is public; those that do not exist (yet) are left out.
PACKAGES = ("graphscale", "graphscale.layers", "graphscale.training", "graphscale.distributed")


def on_pre_build(config) -> None:
    """Raise PluginError for public names that no page shows or that have no docstring."""
    docs = Path(config["docs_dir"])
    problems = missing_names(docs.parent, docs)
    if problems:
        raise PluginError("undocumented public names:\n  " + "\n  ".join(problems))


def missing_names(root: Path, docs: Path) -> list[str]:
    """One sentence for each public name that is not documented.

    A name that two packages offer is documented once, under either.
    """
    text = "\n".join(page.read_text() for page in sorted((docs / "reference").glob("*.md")))
    loader = griffe.GriffeLoader(search_paths=[root])
    package = loader.load("graphscale")
    loader.resolve_aliases(external=False)
    shown = {
        package[name.removeprefix("graphscale.")].canonical_path
        for name in re.findall(r"^::: (\S+)", text, re.MULTILINE)
    }
    problems = []
    for path in PACKAGES:
        inner = path.removeprefix("graphscale").lstrip(".")
        if inner and inner not in package.members:
            continue
        module = package[inner] if inner else package
        for name in public_names(module):
            full = f"{path}.{name}"
            if name.startswith("__"):  # a value such as the version: a sentence names it
                if f"`{full}`" not in text:
                    problems.append(f"{full}: name it in a sentence of a page in docs/reference")
            elif module[name].canonical_path not in shown:
                problems.append(f"{full}: add a line '::: {full}' to a page in docs/reference")
            elif module[name].docstring is None:
                problems.append(f"{full}: has no docstring; write one where it is defined")
    return problems


def public_names(module: griffe.Object) -> list[str]:
    """The names in the module's `__all__`."""
    return [str(name) for name in module.exports or []]
