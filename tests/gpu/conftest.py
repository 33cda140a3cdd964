"""Tests that need an NVIDIA GPU and a library built with CUDA; skipped elsewhere, saying why."""

import pytest
import torch

from graphscale.layers import library


def _lacking() -> str:
    if not torch.cuda.is_available():
        return "needs an NVIDIA GPU and a torch built for CUDA"
    return library.cuda_error()


def pytest_collection_modifyitems(items):
    here = [item for item in items if item.path.parent.name == "gpu"]
    reason = _lacking() if here else ""
    for item in here:
        item.add_marker(pytest.mark.gpu)
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))
