"""Default names of the files that commands write, used if -o is not given."""

from __future__ import annotations

from pathlib import Path


def beside(path: Path, word: str) -> Path:
    """The path with `word` before the suffix: model.onnx, grown -> model.grown.onnx."""
    stem = path.name.removesuffix(".onnx")
    return path.with_name(f"{stem}.{word}.onnx") if stem else Path(f"{word}.onnx")
