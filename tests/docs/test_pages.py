"""The tutorials, the how-to pages and README: every command and every example does what it says."""

from __future__ import annotations

import contextlib
import logging
import shutil
import warnings
from pathlib import Path

import pytest
import torch

from tests.docs.pages import ROOT, MissingPackageError, blocks, run_page
from tests.training import timm_stub

# Before timm's stand-in for torchvision, with which Lightning cannot be imported.
with contextlib.suppress(ImportError):
    import lightning.pytorch  # noqa: F401

TUTORIALS = sorted((ROOT / "docs/tutorials").glob("*.md"))
HOW_TO = [*sorted((ROOT / "docs/how_to").glob("*.md")), ROOT / "docs/index.md", ROOT / "README.md"]


@pytest.fixture(autouse=True)
def _quiet_and_apart(tmp_path, monkeypatch):
    """torch's exporter does not chat, and what is measured is not kept."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(logging.getLogger("torch.onnx"), "level", logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_tutorial(page: Path, tmp_path: Path) -> None:
    """A tutorial starts in an empty folder."""
    _run(page, tmp_path)


@pytest.mark.parametrize("page", HOW_TO, ids=lambda page: page.stem)
def test_how_to(page: Path, tmp_path: Path, model_file: Path) -> None:
    """The other pages start where a user of theirs stands: in a folder with model.onnx."""
    shutil.copy(model_file, tmp_path / "model.onnx")
    _run(page, tmp_path)


def _run(page: Path, folder: Path) -> None:
    torch.manual_seed(0)
    if "import timm" in page.read_text():
        timm_stub.install()
    try:
        run_page(page, folder)
    except MissingPackageError as missing:
        pytest.skip(f"{missing} is not installed; the page was run up to where it is used")


@pytest.fixture(scope="module")
def model_file(tmp_path_factory) -> Path:
    """A small trainable network for images of 32×32, as the first tutorial makes it."""
    folder = tmp_path_factory.mktemp("model")
    page = (ROOT / "docs/tutorials/onnx_file.md").read_text()
    making = next(block.text for block in blocks(page) if "torch.onnx.export" in block.text)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        exec(compile(making, "onnx_file.md", "exec"), {})
    return folder / "model.onnx"
