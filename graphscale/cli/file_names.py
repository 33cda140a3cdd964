"""Names of the files that commands write where -o names none."""

from __future__ import annotations

from pathlib import Path


def beside(path: Path, word: str) -> Path:
    """`word` goes before the suffix: model.onnx, grown -> model.grown.onnx."""
    stem = path.name.removesuffix(".onnx")
    return path.with_name(f"{stem}.{word}.onnx") if stem else Path(f"{word}.onnx")
