import pytest

from tests.custom_ops import emulation


@pytest.fixture(scope="session")
def emulated_library():
    if reason := emulation.missing_tools():
        pytest.skip(reason)
    return emulation.Emulation(emulation.build())


@pytest.fixture(params=["forward", "reversed"])
def on_cuda(request, emulated_library, monkeypatch):
    """Runs an operator's emulated CUDA kernel, its threads in one order or the other.

    Both orders must pass every test: a missing barrier shows in one of them.
    """
    if request.param == "reversed":
        monkeypatch.setenv("GRAPHSCALE_EMULATION_REVERSED", "1")

    def run(operator, *args, **kwargs):
        with monkeypatch.context() as patch:
            emulated_library.use(patch)
            return operator(*args, **kwargs)

    return run
