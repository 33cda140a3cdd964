"""Writes docs/operators.md: python -m graphscale.layers.document [docs/operators.md]

The library's own descriptions of its operators go in; the page, in the form of ONNX's Operators.md,
comes out. A test compares the file with what this writes.
"""

from __future__ import annotations

import sys
from pathlib import Path

from graphscale.layers import library
from graphscale.layers.operator import DOMAIN, VERSION

_INTRODUCTION = f"""\
# Operators

Domain `{DOMAIN}`, version {VERSION}, in the form of ONNX's own
[Operators.md](https://github.com/onnx/onnx/blob/main/docs/Operators.md). This file is made from the
library's registrations by `python -m graphscale.layers.document docs/operators.md`; a test keeps it
up to date. Every operator has a CPU and a CUDA kernel for every type of T, and a function body that
`graphscale.export` puts into the model, so that an onnxruntime without the library runs it, too.
"""


def markdown() -> str:
    """The text of docs/operators.md."""
    operators = library.describe()
    names = "\n".join(f"- [{DOMAIN}.{op['name']}](#{_anchor(op)})" for op in operators)
    return "\n".join([_INTRODUCTION, names, "", *map(_section, operators)])


def _anchor(operator: dict) -> str:
    return f"{DOMAIN}{operator['name']}".lower()


def _section(operator: dict) -> str:
    name = operator["name"]
    lines = [
        f"## <a name='{_anchor(operator)}'></a>**{DOMAIN}.{name}**",
        "",
        operator["summary"],
        "",
        "#### Version",
        "",
        f"This version of the operator has been available since version {VERSION} of the "
        f"'{DOMAIN}' operator set.",
    ]
    if operator["attributes"]:
        lines += ["", "#### Attributes", "", "<dl>"]
        for attribute in sorted(operator["attributes"], key=lambda one: one["name"]):
            lines += _entry(
                f"{attribute['name']} : {attribute['type']}{_default(attribute)}", attribute
            )
        lines.append("</dl>")
    for kind in ("inputs", "outputs"):
        values = operator[kind]
        required = sum(not value["optional"] for value in values)
        count = f" ({required} - {len(values)})" if required != len(values) else ""
        lines += ["", f"#### {kind.capitalize()}{count}", "", "<dl>"]
        for value in values:
            notes = [note for note in ("optional", "trainable") if value[note]]
            marks = f" ({', '.join(notes)})" if notes else ""
            type_name = "T" if value["type"] == "T" else f"tensor({value['type']})"
            lines += _entry(f"{value['name']}{marks} : {type_name}", value)
        lines.append("</dl>")
    types = ", ".join(f"tensor({one})" for one in operator["types"])
    lines += ["", "#### Type Constraints", "", f"<dl>\n<dt>T : {types}</dt>"]
    lines += ["<dd>Floating-point tensors, all of one type.</dd>", "</dl>", ""]
    return "\n".join(lines)


def _default(attribute: dict) -> str:
    if attribute["default"] is None:
        return " (required)"
    if attribute["default"] == []:
        return ""
    return f" (default is {attribute['default']})"


def _entry(term: str, described: dict) -> list[str]:
    return [f"<dt><tt>{term}</tt></dt>", f"<dd>{described['meaning']}</dd>"]


if __name__ == "__main__":
    Path(sys.argv[1] if len(sys.argv) > 1 else "docs/operators.md").write_text(markdown())
