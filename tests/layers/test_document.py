"""docs/operators.md is what the library's descriptions say, in the form of ONNX's Operators.md."""

import re
from pathlib import Path

from graphscale.layers import document, library

OPERATOR = {
    "name": "Blur",
    "summary": "Blurs.",
    "attributes": [
        {"name": "width", "type": "int", "default": None, "meaning": "Pixels."},
        {"name": "pads", "type": "ints", "default": [], "meaning": "Around."},
        {"name": "power", "type": "float", "default": 2.0, "meaning": "Of the mean."},
    ],
    "inputs": [
        {"name": "x", "type": "T", "optional": False, "trainable": False, "meaning": "Image."},
        {"name": "w", "type": "T", "optional": True, "trainable": True, "meaning": "Kernel."},
        {"name": "i", "type": "int64", "optional": True, "trainable": False, "meaning": "Rows."},
    ],
    "outputs": [
        {"name": "y", "type": "T", "optional": False, "trainable": False, "meaning": "Result."}
    ],
    "types": ["float", "double"],
}


def test_the_page_is_up_to_date():
    path = Path(__file__).parents[2] / "docs" / "operators.md"
    assert path.read_text() == document.markdown()


def test_a_section(monkeypatch):
    monkeypatch.setattr(library, "describe", lambda: [OPERATOR])
    text = document.markdown()
    assert "- [graphscale.Blur](#graphscaleblur)" in text
    section = text[text.index("## <a name='graphscaleblur'>") :]
    terms = re.findall(r"<dt>(?:<tt>)?(.*?)(?:</tt>)?</dt>", section)
    assert terms == [
        *("pads : ints", "power : float (default is 2.0)", "width : int (required)"),
        *("x : T", "w (optional, trainable) : T", "i (optional) : tensor(int64)", "y : T"),
        "T : tensor(float), tensor(double)",
    ]
    assert "#### Inputs (1 - 3)" in section
    assert "#### Outputs\n" in section
    assert "<dd>Kernel.</dd>" in section


def test_every_operator_has_a_section_that_the_list_links_to():
    text = document.markdown()
    names = [each["name"] for each in library.describe()]
    assert re.findall(r"\*\*graphscale\.(\w+)\*\*", text) == names
    linked = re.findall(r"^- .*\(#(\w+)\)$", text, re.MULTILINE)
    assert linked == re.findall(r"<a name='(\w+)'>", text)
