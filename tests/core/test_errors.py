"""Errors name the file that they are about, once."""

from pathlib import Path

import pytest

from graphscale.core.errors import GraphScaleError, about


@pytest.mark.parametrize(
    ("file", "said", "wanted"),
    [
        ("a.onnx", "node 'n' is odd; drop it", "a.onnx: node 'n' is odd; drop it"),
        (Path("a.onnx"), "a.onnx: is no file", "a.onnx: is no file"),
        (b"bytes of a model", "node 'n' is odd; drop it", "node 'n' is odd; drop it"),
    ],
)
def test_the_file_is_named_once(file: object, said: str, wanted: str) -> None:
    with pytest.raises(GraphScaleError) as error, about(file):
        raise GraphScaleError(said)
    assert str(error.value) == wanted


def test_an_error_about_another_file_is_not_said_of_the_first() -> None:
    with pytest.raises(GraphScaleError) as error, about("a.onnx", None, Path("b.json")):
        raise GraphScaleError("b.json: is damaged; write it again")
    assert str(error.value) == "b.json: is damaged; write it again"
