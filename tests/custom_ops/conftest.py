"""Fixtures that run the CUDA kernels in their emulation on the host."""

import pytest

from tests.custom_ops import emulation


@pytest.fixture(scope="session")
def emulated_library():
    if reason := emulation.missing_tools():
        pytest.skip(reason)
    return emulation.Emulation(emulation.build())


@pytest.fixture(params=["forward", "reversed"])
def on_cuda(request, emulated_library, monkeypatch):
    """Runs an operator by its emulated CUDA kernel.

    Every test runs with the threads of a block in rising and in falling order: a missing barrier
    shows in one of them.
    """
    if request.param == "reversed":
        monkeypatch.setenv("GRAPHSCALE_EMULATION_REVERSED", "1")

    def run(operator, *args, **kwargs):
        with monkeypatch.context() as patch:
            emulated_library.use(patch)
            return operator(*args, **kwargs)

    return run
