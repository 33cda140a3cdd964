"""Tests that need an NVIDIA GPU and a library built with CUDA; skipped elsewhere, saying why."""

import os

import pytest
import torch

from graphscale.layers import library


def _lacking() -> str:
    if not torch.cuda.is_available():
        return "needs an NVIDIA GPU and a torch built for CUDA"
    return library.cuda_error()


@pytest.fixture(autouse=True)
def _usable_gpu():
    """After an access to memory that is not there, say, no kernel of the process runs any more."""
    yield
    try:
        torch.cuda.synchronize()
    except RuntimeError as reason:
        if "PYTEST_XDIST_WORKER" in os.environ:
            os._exit(1)  # xdist says which test it was, and goes on in a new process
        pytest.exit(f"the GPU is beyond use: {reason}", returncode=1)


def pytest_collection_modifyitems(items):
    here = [item for item in items if item.path.parent.name == "gpu"]
    reason = _lacking() if here else ""
    for item in here:
        item.add_marker(pytest.mark.gpu)
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))
