"""Within the block nothing of torch's tracing is heard; afterwards everything is as before."""

from __future__ import annotations

import logging
import warnings

import pytest

from graphscale.layers.quiet_tracing import quiet_tracing


@pytest.mark.parametrize(
    "name", ["torch.onnx", "torch.export._trace", "torch._subclasses.fake_tensor"]
)
def test_loggers_and_warnings(caplog: pytest.LogCaptureFixture, name: str) -> None:
    logger = logging.getLogger(name)
    before = logger.level
    with warnings.catch_warnings(record=True) as heard, quiet_tracing():
        logger.error("said within")
        warnings.warn("said within", stacklevel=1)
    assert logger.level == before
    assert not heard
    assert not caplog.records


def test_level_comes_back_after_an_error() -> None:
    before = logging.getLogger("torch.onnx").level
    with pytest.raises(ValueError, match="a fault"), quiet_tracing():
        raise ValueError("a fault")
    assert logging.getLogger("torch.onnx").level == before
